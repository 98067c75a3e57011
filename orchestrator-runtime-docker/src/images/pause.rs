//! The program that holds a pod's namespaces, written down instruction by instruction.
//!
//! It waits for ever, and lets go of children that are given to it: where the pod shares its process namespace it is the first
//! process there. An image of some hundred bytes, without a compiler.

use orchestrator_core::runtime::RuntimeError;
use orchestrator_images::{ImageSource, PackedImage};

/// Where the program is in the image.
const PATH: &str = "/pause";

/// Address at which the file is mapped, headers and all.
const BASE: u64 = 0x40_0000;
/// Length of an ELF header and one program header, in bytes.
const HEADERS_BYTES: u64 = 64 + 56;
/// `struct sigaction` of the kernel with the handler `SIG_IGN`, no flags, no restorer and an empty mask.
const IGNORE: [u64; 4] = [1, 0, 0, 0];

/// The variable that says which node's image it is.
const OWNER: &str = "ORCHESTRATOR_NODE";

/// The image of a node's sandboxes, which is no other node's: the engine takes an image away with its last name, and a name that
/// another node gives to the same image at that moment is left without one.
pub(super) fn image(architecture: &str, owner: &str) -> Result<ImageSource, RuntimeError> {
    let missing = || RuntimeError::Unsupported(format!("sandboxes on an engine for {architecture}"));
    let program = program(architecture).ok_or_else(missing)?;
    let image = PackedImage::new().architecture(architecture).content(PATH, program, 0o755);
    Ok(image.entrypoint([PATH]).variable(OWNER, owner).working_directory("/").into())
}

/// The program for an architecture, by the name that images give it; `None` when there is none for it.
fn program(architecture: &str) -> Option<Vec<u8>> {
    let (machine, code) = match architecture {
        "amd64" => (62, x86_64()),
        "arm64" => (183, aarch64()),
        _ => return None,
    };
    let mut file = headers(machine, code.len() as u64);
    file.extend(code);
    Some(file)
}

/// `rt_sigaction(SIGCHLD, &IGNORE, NULL, 8)`, and then `pause()` again and again.
fn x86_64() -> Vec<u8> {
    let code = [
        &[0xb8, 13, 0, 0, 0][..],         // mov eax, 13 (rt_sigaction)
        &[0xbf, 17, 0, 0, 0],             // mov edi, 17 (SIGCHLD)
        &[0x48, 0x8d, 0x35, 19, 0, 0, 0], // lea rsi, [rip + 19]: what follows the code
        &[0x31, 0xd2],                    // xor edx, edx
        &[0x41, 0xba, 8, 0, 0, 0],        // mov r10d, 8
        &[0x0f, 0x05],                    // syscall
        &[0xb8, 34, 0, 0, 0],             // mov eax, 34 (pause)
        &[0x0f, 0x05],                    // syscall
        &[0xeb, 0xf7],                    // jmp back to the `mov` before
    ]
    .concat();
    with_data(code)
}

/// The same with `ppoll(NULL, 0, NULL, NULL, 0)`, because there is no `pause` on this architecture.
fn aarch64() -> Vec<u8> {
    let load = |register: u32, value: u32| 0xd280_0000 | (value << 5) | register;
    let supervisor_call = 0xd400_0001_u32;
    let words = [
        load(8, 134),    // rt_sigaction
        load(0, 17),     // SIGCHLD
        0x1000_0181_u32, // adr x1, 48 bytes on: what follows the code
        load(2, 0),
        load(3, 8),
        supervisor_call,
        load(8, 73), // ppoll
        load(0, 0),
        load(1, 0),
        load(2, 0),
        load(3, 0),
        load(4, 0),
        supervisor_call,
    ];
    let mut code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // b: back to `load(8, 73)`, the seventh instruction
    let back = 0x1400_0000_u32 | (0x03ff_ffff & (6_u32.wrapping_sub(words.len() as u32)));
    code.extend(back.to_le_bytes());
    with_data(code)
}

fn with_data(mut code: Vec<u8>) -> Vec<u8> {
    code.extend(IGNORE.iter().flat_map(|word| word.to_le_bytes()));
    code
}

/// An ELF header and one segment that is the whole file, readable and executable.
fn headers(machine: u16, code_bytes: u64) -> Vec<u8> {
    let size = HEADERS_BYTES + code_bytes;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    half(&mut file, 2); // an executable
    half(&mut file, machine);
    word(&mut file, 1); // version
    long(&mut file, BASE + HEADERS_BYTES); // entry point
    long(&mut file, 64); // program headers
    long(&mut file, 0); // no section headers
    word(&mut file, 0); // flags
    for value in [64, 56, 1, 64, 0, 0] {
        half(&mut file, value); // sizes and numbers of headers
    }
    word(&mut file, 1); // a segment to load
    word(&mut file, 5); // readable, executable
    for value in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut file, value); // offset, addresses, sizes, alignment
    }
    file
}

#[cfg(test)]
mod tests {
    use goblin::elf::Elf;

    use super::*;

    #[test]
    fn both_programs_are_whole() {
        for (architecture, machine) in [("amd64", 62), ("arm64", 183)] {
            let file = program(architecture).unwrap();
            let elf = Elf::parse(&file).unwrap();
            assert_eq!((elf.header.e_machine, elf.program_headers.len()), (machine, 1));
            assert_eq!(elf.entry, BASE + HEADERS_BYTES);
            assert_eq!(elf.program_headers[0].p_filesz, file.len() as u64);
            let data: Vec<u8> = IGNORE.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert!(file.ends_with(&data));
        }
        assert_eq!(program("s390x"), None);
    }

    #[test]
    fn what_is_pointed_at_follows_the_code() {
        let code = x86_64();
        let after_lea = 5 + 5 + 7;
        assert_eq!(code.len() - 32, after_lea + 19);
        // The jump ends the code and goes back over itself, the call and the number of it.
        assert_eq!((code[code.len() - 33] as i8, 2 + 2 + 5), (-9, 9));
        let code = aarch64();
        let (adr_at, data_at) = (2 * 4, code.len() - 32);
        let word = u32::from_le_bytes(code[adr_at..adr_at + 4].try_into().unwrap());
        let offset = ((word >> 5) & 0x7_ffff) << 2 | ((word >> 29) & 3);
        assert_eq!(adr_at + offset as usize, data_at);
        let branch = u32::from_le_bytes(code[data_at - 4..data_at].try_into().unwrap());
        let steps = (branch << 6).cast_signed() >> 6;
        assert_eq!((data_at as i32 - 4) / 4 + steps, 6);
    }
}
