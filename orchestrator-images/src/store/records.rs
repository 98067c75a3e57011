//! What is written down about names, layers and those who need them.

use std::path::PathBuf;

use jiff::Timestamp;
use orchestrator_core::runtime::{Image, ImageReference, ImageUser};
use serde::{Deserialize, Serialize};

use super::Shelf;
use crate::{ImageError, files, limits::DOCUMENT_BYTES, parts::digest};

/// A name and the image that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    /// The whole name.
    pub(crate) name: String,
    /// What the image is known by: `repository@sha256:…` of its manifest, or `sha256:…` of its configuration.
    pub(crate) id: String,
    /// The digest of the configuration, in hexadecimal.
    pub(crate) configuration: String,
    /// Content of all files, in bytes.
    pub(crate) size_bytes: u64,
    /// `user` or `user:group`.
    pub(crate) user: Option<String>,
    pub(crate) pulled_at: Timestamp,
}

/// What a layer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) content_bytes: u64,
    pub(crate) archive_bytes: u64,
    pub(crate) entries: u64,
}

impl NameRecord {
    pub(crate) fn describe(&self, name: &str) -> Image {
        Image {
            name: name.to_owned(),
            id: self.id.clone(),
            size_bytes: self.size_bytes,
            user: self.user.as_deref().and_then(ImageUser::parse),
            pinned: false,
        }
    }
}

impl Shelf {
    /// What a name leads to.
    pub(crate) fn name(&self, reference: &ImageReference) -> Result<Option<NameRecord>, ImageError> {
        let path = self.name_path(&reference.to_string());
        files::read_json(&path, DOCUMENT_BYTES).map_err(|error| ImageError::io(&path, error))
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> Result<Vec<NameRecord>, ImageError> {
        let directory = self.directory.join("names");
        let mut records: Vec<NameRecord> = Vec::new();
        for file in files::names_in(&directory).map_err(|error| ImageError::io(&directory, error))? {
            let path = directory.join(file);
            records.extend(files::read_json(&path, DOCUMENT_BYTES).map_err(|error| ImageError::io(&path, error))?);
        }
        records.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(records)
    }

    /// Writes down what a name leads to.
    pub(crate) fn set_name(&self, record: &NameRecord) -> Result<(), ImageError> {
        let _turn = self.turn()?;
        let path = self.name_path(&record.name);
        files::write_json(&path, record).map_err(|error| ImageError::io(&path, error))
    }

    /// Forgets a name, and removes what nobody needs any more.
    pub(crate) fn remove_name(&self, reference: &ImageReference) -> Result<(), ImageError> {
        let turn = self.turn()?;
        let path = self.name_path(&reference.to_string());
        files::remove_file(&path).map_err(|error| ImageError::io(&path, error))?;
        self.clean(&turn)
    }

    /// A name may have slashes and be as long as a file's name must not be.
    fn name_path(&self, name: &str) -> PathBuf {
        self.directory.join("names").join(digest(name.as_bytes()))
    }
}
