//! Reads the entries of a tar archive in bounded memory.
//!
//! The headers' fields are read by the `tar` crate; its own walk reads extended headers whole, however long a stranger says
//! they are. Forms: POSIX.1-2001 (pax), ustar, and GNU's long names.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
};

use tar::{EntryType, Header, PaxExtensions};

use super::broken;
use crate::{ImageError, limits::HEADER_BYTES};

const BLOCK_BYTES: usize = 512;
/// How pax names an extended attribute of a file.
const ATTRIBUTE: &str = "SCHILY.xattr.";

/// An archive as it is read.
pub(super) struct Archive<R> {
    content: R,
    /// What of the current entry was not read yet, in bytes.
    left: u64,
    /// What fills its last block, in bytes.
    padding: u64,
}

/// A file, directory or link in an archive.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryType,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) modified_seconds: i64,
    pub(super) device: (u32, u32),
    /// Extended attributes.
    pub(super) attributes: BTreeMap<String, Vec<u8>>,
}

/// What extended headers say about the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<String, Vec<u8>>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(content: R) -> Self {
        Self { content, left: 0, padding: 0 }
    }

    /// The next entry; its content is then read from the archive itself. `None` at the end.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let size_bytes = field(&header, 124..136, Header::entry_size)?;
            match kind {
                EntryType::XHeader => extension.records = read_records(&self.extended(size_bytes)?)?,
                EntryType::XGlobalHeader => drop(self.extended(size_bytes)?),
                EntryType::GNULongName => extension.path = Some(text_of(self.extended(size_bytes)?)),
                EntryType::GNULongLink => extension.link = Some(text_of(self.extended(size_bytes)?)),
                _ => return self.entry(kind, &header, size_bytes, extension).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        kind: EntryType,
        header: &Header,
        size_bytes: u64,
        mut extension: Extension,
    ) -> Result<Entry, ImageError> {
        let records = &mut extension.records;
        if kind == EntryType::GNUSparse || records.keys().any(|key| key.starts_with("GNU.sparse.")) {
            return Err(ImageError::Unsupported("the layer has a sparse file".to_owned()));
        }
        let size_bytes = number(records, "size")?.unwrap_or(size_bytes);
        let has_content = matches!(kind, EntryType::Regular | EntryType::Continuous);
        // Some writers give links the length of what they lead to, with no content behind them.
        self.begin(if has_content { size_bytes } else { 0 });
        let id = |value: u64| {
            u32::try_from(value).map_err(|_| ImageError::Invalid(format!("the layer has the user {value}")))
        };
        let user = number(records, "uid")?.map_or_else(|| field(header, 108..116, Header::uid), Ok)?;
        let group = number(records, "gid")?.map_or_else(|| field(header, 116..124, Header::gid), Ok)?;
        let modified = field(header, 136..148, Header::mtime)?;
        let mode = field(header, 100..108, |header| header.mode().map(u64::from))?;
        let attributes =
            records.iter().filter_map(|(key, value)| Some((key.strip_prefix(ATTRIBUTE)?.to_owned(), value.clone())));
        let device = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
        Ok(Entry {
            kind,
            attributes: attributes.collect(),
            path: records.remove("path").or(extension.path).unwrap_or_else(|| header.path_bytes().into_owned()),
            link: records
                .remove("linkpath")
                .or(extension.link)
                .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            user: id(user)?,
            group: id(group)?,
            modified_seconds: i64::try_from(modified).unwrap_or(i64::MAX),
            device: (device(header.device_major()), device(header.device_minor())),
        })
    }

    /// The next header; `None` where the archive ends.
    fn header(&mut self) -> Result<Option<Header>, ImageError> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.content.read(&mut block[filled..]).map_err(broken)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                count => filled += count,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let field = 148..156;
        let sum = |(at, byte): (usize, &u8)| u32::from(if field.contains(&at) { b' ' } else { *byte });
        let actual: u32 = block.iter().enumerate().map(sum).sum();
        if header.cksum().map_err(broken)? != actual {
            return Err(ImageError::Invalid(
                "the layer is no archive, or is damaged: a header's sum is wrong".to_owned(),
            ));
        }
        Ok(Some(header))
    }

    fn begin(&mut self, size_bytes: u64) {
        let over = size_bytes % BLOCK_BYTES as u64;
        self.left = size_bytes;
        self.padding = if over == 0 { 0 } else { BLOCK_BYTES as u64 - over };
    }

    /// Passes over what nobody read of the current entry.
    fn skip(&mut self) -> Result<(), ImageError> {
        let length = self.left.saturating_add(self.padding);
        let passed = io::copy(&mut (&mut self.content).take(length), &mut io::sink()).map_err(broken)?;
        if passed < length {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// The content of an extended header.
    fn extended(&mut self, size_bytes: u64) -> Result<Vec<u8>, ImageError> {
        if size_bytes > HEADER_BYTES {
            return Err(ImageError::too_long("a header in the layer", HEADER_BYTES));
        }
        self.begin(size_bytes);
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(broken)?;
        Ok(content)
    }
}

/// The content of the current entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.content.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// A number of a header; what a writer left blank is 0, as other readers have it.
fn field(header: &Header, at: Range<usize>, read: impl Fn(&Header) -> io::Result<u64>) -> Result<u64, ImageError> {
    if header.as_bytes()[at].iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    read(header).map_err(broken)
}

fn read_records(content: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ImageError> {
    let mut records = BTreeMap::new();
    for record in PaxExtensions::new(content) {
        let record = record.map_err(broken)?;
        // Names that are no text belong to no field that matters here.
        if let Ok(key) = record.key() {
            records.insert(key.to_owned(), record.value_bytes().to_owned());
        }
    }
    Ok(records)
}

fn number(records: &BTreeMap<String, Vec<u8>>, key: &str) -> Result<Option<u64>, ImageError> {
    let Some(value) = records.get(key) else { return Ok(None) };
    let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| ImageError::Invalid(format!("the layer has a {key} that is no number")))
}

/// A name up to the zero byte that ends it.
fn text_of(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, ImageError> {
        let mut archive = Archive::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next_entry()? {
            let mut content = Vec::new();
            archive.read_to_end(&mut content).map_err(broken)?;
            entries.push((entry, content));
        }
        Ok(entries)
    }

    fn written(name: &str, content: &[u8], attribute: Option<(&str, &[u8])>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(attribute).unwrap();
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_mtime(12);
        builder.append_data(&mut header, name, content).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        for name in ["a/b", &"long/".repeat(60)] {
            let bytes = written(name, &[1; 700], Some(("SCHILY.xattr.user.x", b"v")));
            let [(entry, content)] = &entries(&bytes).unwrap()[..] else { panic!() };
            assert_eq!(
                (entry.path.as_slice(), content.len(), entry.user, entry.mode),
                (name.as_bytes(), 700, 7, 0o640)
            );
            assert_eq!(entry.attributes["user.x"], b"v");
        }
        assert_eq!(entries(&[]).unwrap().len(), 0);
    }

    #[test]
    fn sizes_of_records_count() {
        // The header says one thing and the record another; the next entry is found where the record says.
        let mut bytes = written("a", &[], Some(("size", b"512")));
        let at = bytes.len() - 1024;
        let tail = written("b", b"x", None);
        bytes.truncate(at);
        bytes.extend([9; 512]);
        bytes.extend(tail);
        let found = entries(&bytes).unwrap();
        assert_eq!(found.iter().map(|(_, content)| content.len()).collect::<Vec<_>>(), [512, 1]);
    }

    #[test]
    fn what_is_broken_is_an_error() {
        let bytes = written("a", &[1; 700], None);
        assert!(matches!(entries(&bytes[..900]), Err(ImageError::Invalid(_))));
        let mut damaged = bytes.clone();
        damaged[3] ^= 1;
        assert!(matches!(entries(&damaged), Err(ImageError::Invalid(_))));
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(u64::MAX >> 1);
        header.set_cksum();
        assert!(matches!(entries(header.as_bytes()), Err(ImageError::TooLarge { .. })));
    }

    proptest::proptest! {
        /// Whatever a stranger writes, reading it ends.
        #[test]
        fn nothing_hangs(at in 0_usize..2048, byte: u8, cut in 0_usize..3000) {
            let mut bytes = written("a/b", &[1; 700], Some(("SCHILY.xattr.user.x", b"v")));
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut);
            let _ = entries(&bytes);
        }
    }
}
