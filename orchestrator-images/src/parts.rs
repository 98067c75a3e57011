//! An image in parts, and the archive that engines load: that of `docker save`.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Take, Write},
    path::Path,
};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{ImageError, limits::BUFFER_BYTES};

/// An image: its configuration, and its layers from the lowest on.
#[derive(Debug)]
pub struct Parts {
    /// The configuration, as JSON.
    pub configuration: Vec<u8>,
    /// The layers, from the lowest on; each an archive that may be compressed.
    pub layers: Vec<Layer>,
}

/// A layer: a part of an open file.
#[derive(Debug)]
pub struct Layer {
    pub(crate) file: File,
    pub(crate) offset: u64,
    pub(crate) size_bytes: u64,
}

impl Layer {
    /// The layer from its beginning on.
    pub(crate) fn reader(&self) -> io::Result<BufReader<Take<File>>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, file.take(self.size_bytes)))
    }
}

impl Parts {
    /// The identity of the image: that of its configuration.
    pub fn id(&self) -> String {
        format!("sha256:{}", digest(&self.configuration))
    }

    /// Writes the archive that an engine loads; it will know the image by this reference.
    pub fn write(&mut self, reference: &str, to: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(to);
        let configuration = format!("{}.json", digest(&self.configuration));
        let names: Vec<String> = (0..self.layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        let manifest = json!([{ "Config": configuration, "RepoTags": [reference], "Layers": names }]);
        let manifest = serde_json::to_vec(&manifest)?;
        append(&mut archive, "manifest.json", manifest.len() as u64, &manifest[..])?;
        append(&mut archive, &configuration, self.configuration.len() as u64, &self.configuration[..])?;
        for (name, layer) in names.iter().zip(&mut self.layers) {
            layer.file.seek(SeekFrom::Start(layer.offset))?;
            append(&mut archive, name, layer.size_bytes, &mut layer.file)?;
        }
        archive.finish()
    }
}

/// A file in a directory that has no name, and is gone when it is closed. The number tells it from others that are being made.
pub fn nameless_file(directory: &Path, unique: u64) -> Result<File, ImageError> {
    let path = directory.join(format!(".image-{unique:016x}"));
    std::fs::create_dir_all(directory).map_err(|error| ImageError::io(directory, error))?;
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(|error| ImageError::io(&path, error))?;
    std::fs::remove_file(&path).map_err(|error| ImageError::io(&path, error))?;
    Ok(file)
}

/// Adds a file of this length to an archive, without a trace of when and by whom.
fn append(archive: &mut tar::Builder<impl Write>, name: &str, size_bytes: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, name, Exactly { content, left: size_bytes })
}

/// Reads so many bytes, and fails where there are fewer: an archive with a file cut short would be read as something else.
struct Exactly<R> {
    content: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
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

/// SHA-256, in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
