//! The images of a machine, kept by their content.
//!
//! ```text
//! directory/lock               taken for every change, by every process that shares the directory
//!          /names/KEY          a name and the image that it leads to
//!          /configurations/D   configurations, by digest
//!          /layers/D/fs        unpacked layers, by the digest of their archive; there only when whole
//!          /making/            layers that are being unpacked
//!          /downloads/D        blobs that are being downloaded, by digest
//!          /uses/HOLDER        which layers a container, or a pull, needs
//! ```
//!
//! A file appears whole or not at all, so that a crash leaves nothing but work to be done again.

mod garbage;
mod records;

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    ImageConfiguration, ImageError, files,
    limits::DOCUMENT_BYTES,
    parts::{Layer, digest},
    unpack::{Allowance, Unpacked, unpack},
};
pub(crate) use records::{LayerRecord, NameRecord};

/// An image and where its layers are, held until it is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldImage {
    /// The image's identity.
    pub id: String,
    /// What it says about its containers.
    pub configuration: ImageConfiguration,
    /// Its layers' directories, the lowest first; not to be written to.
    pub layers: Vec<PathBuf>,
}

/// The files of a store. All of it blocks.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    directory: PathBuf,
}

/// The right to change a store, as long as it lives.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Unlocks as it is closed.
    _file: File,
}

impl Shelf {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Makes the directories.
    pub(crate) fn prepare(&self) -> Result<(), ImageError> {
        for name in ["names", "configurations", "layers", "making", "downloads", "uses"] {
            let path = self.directory.join(name);
            files::make_private_directory(&path).map_err(|error| ImageError::io(&path, error))?;
        }
        Ok(())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a blob is downloaded to, by whoever has this file locked; it is there, and empty or the blob's beginning. The disk
    /// has to have room for the whole.
    pub(crate) fn begin_download(
        &self,
        hexadecimal: &str,
        size_bytes: u64,
        reserved_bytes: u64,
    ) -> Result<(PathBuf, File), ImageError> {
        let path = self.directory.join("downloads").join(hexadecimal);
        let failed = |error| ImageError::io(&path, error);
        let disk = rustix::fs::statvfs(&self.directory).map_err(|error| failed(error.into()))?;
        let available_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        if available_bytes.saturating_sub(size_bytes) < reserved_bytes {
            return Err(ImageError::NoSpace { available_bytes, reserved_bytes });
        }
        loop {
            let file = File::options().append(true).create(true).open(&path).map_err(failed)?;
            file.lock().map_err(failed)?;
            // Whoever had it before has removed it when the layer was there.
            let is_same = match fs::metadata(&path) {
                Ok(metadata) => metadata.ino() == file.metadata().map_err(failed)?.ino(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                Err(error) => return Err(failed(error)),
            };
            if is_same {
                return Ok((path, file));
            }
        }
    }

    /// Waits until nobody else changes the store.
    pub(crate) fn turn(&self) -> Result<Turn, ImageError> {
        let path = self.directory.join("lock");
        let failed = |error| ImageError::io(&path, error);
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Turn { _file: file })
    }

    /// What a layer is, once it is whole.
    pub(crate) fn layer(&self, diff_id: &str) -> Result<Option<LayerRecord>, ImageError> {
        let path = self.layer_directory(diff_id).join("layer.json");
        files::read_json(&path, DOCUMENT_BYTES).map_err(|error| ImageError::io(&path, error))
    }

    /// Unpacks a layer, unless it is there. `unique` tells this attempt from others.
    pub(crate) fn add_layer(
        &self,
        diff_id: &str,
        layer: &mut Layer,
        allowance: Allowance,
        unique: u64,
    ) -> Result<LayerRecord, ImageError> {
        if let Some(record) = self.layer(diff_id)? {
            return Ok(record);
        }
        let making = self.directory.join("making").join(format!("{diff_id}.{unique:016x}"));
        let made = self.make_layer(&making, diff_id, layer, allowance);
        if made.is_err() {
            // What cannot be removed now is removed with the garbage.
            let _ = files::remove_tree(&making);
        }
        made
    }

    fn make_layer(
        &self,
        making: &Path,
        diff_id: &str,
        layer: &mut Layer,
        allowance: Allowance,
    ) -> Result<LayerRecord, ImageError> {
        let failed = |error| ImageError::io(making, error);
        let content = making.join("fs");
        fs::create_dir_all(&content).map_err(failed)?;
        // The mode of a root that the layer does not mention.
        fs::set_permissions(&content, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let Unpacked { content_bytes, archive_bytes, entries } = unpack(layer, diff_id, &content, allowance)?;
        let record = LayerRecord { content_bytes, archive_bytes, entries };
        files::write_json(&making.join("layer.json"), &record).map_err(failed)?;
        let _turn = self.turn()?;
        let place = self.layer_directory(diff_id);
        match fs::rename(making, &place) {
            Ok(()) => {}
            // Somebody else was quicker, with the same content.
            Err(_) if self.layer(diff_id)?.is_some() => files::remove_tree(making).map_err(failed)?,
            Err(error) => return Err(ImageError::io(&place, error)),
        }
        files::sync_directory(&self.directory.join("layers")).map_err(failed)?;
        Ok(record)
    }

    /// Keeps a configuration under its digest, which it returns.
    pub(crate) fn add_configuration(&self, bytes: &[u8]) -> Result<String, ImageError> {
        let hexadecimal = digest(bytes);
        let path = self.configuration_path(&hexadecimal);
        let _turn = self.turn()?;
        files::write_durably(&path, bytes).map_err(|error| ImageError::io(&path, error))?;
        Ok(hexadecimal)
    }

    /// Reads a configuration and checks that it is the one.
    pub(crate) fn configuration(&self, hexadecimal: &str) -> Result<ImageConfiguration, ImageError> {
        let path = self.configuration_path(hexadecimal);
        let bytes = files::read(&path, DOCUMENT_BYTES).map_err(|error| ImageError::io(&path, error))?;
        let bytes = bytes.ok_or_else(|| ImageError::Missing(format!("{}: no such file", path.display())))?;
        if digest(&bytes) != hexadecimal {
            return Err(ImageError::Invalid(format!("{} is damaged", path.display())));
        }
        ImageConfiguration::parse(&bytes)
    }

    /// Holds the layers of an image for somebody, and tells where they are. Holding again changes what is held.
    pub(crate) fn hold(&self, record: &NameRecord, holder: &str) -> Result<HeldImage, ImageError> {
        let _turn = self.turn()?;
        let configuration = self.configuration(&record.configuration)?;
        let mut layers = Vec::new();
        for diff_id in &configuration.diff_ids {
            if self.layer(diff_id)?.is_none() {
                return Err(ImageError::Missing(format!("image {}: its layer sha256:{diff_id} is gone", record.name)));
            }
            layers.push(self.layer_directory(diff_id).join("fs"));
        }
        self.write_use(holder, &configuration.diff_ids)?;
        Ok(HeldImage { id: record.id.clone(), configuration, layers })
    }

    fn layer_directory(&self, diff_id: &str) -> PathBuf {
        self.directory.join("layers").join(diff_id)
    }

    fn configuration_path(&self, hexadecimal: &str) -> PathBuf {
        self.directory.join("configurations").join(hexadecimal)
    }
}
