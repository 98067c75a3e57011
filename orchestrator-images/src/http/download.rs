//! Downloads a blob into a file, taking up what is there already, and what breaks on the way.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Repository;
use crate::{
    ImageError, files,
    limits::{BUFFER_BYTES, DOWNLOAD_PIECES, DOWNLOAD_RESUMPTIONS, DOWNLOADS_IN_VAIN, RESUMPTION_PAUSE},
    manifest::Descriptor,
    parts::hexadecimal,
};

impl Repository {
    /// Makes the file hold the blob. What it holds before is its beginning. `progress` is told how long it is by now, in bytes.
    pub(crate) async fn download(
        &self,
        descriptor: &Descriptor,
        path: &Path,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ImageError> {
        let (mut resumptions, mut in_vain) = (0, 0);
        loop {
            let before = length(path)?;
            let result = if before < descriptor.size || descriptor.size == 0 {
                self.fetch(descriptor, path, before, progress).await
            } else {
                Ok(())
            };
            let Err(error) = result else { break };
            // A host that goes on where it broke off may break off again; one that gives nothing is not asked for ever.
            resumptions += 1;
            in_vain = if length(path)? > before { 0 } else { in_vain + 1 };
            let is_given_up = in_vain > DOWNLOADS_IN_VAIN || resumptions > DOWNLOAD_RESUMPTIONS;
            if !matches!(error, ImageError::Registry(_)) || is_given_up {
                return Err(error);
            }
            tracing::debug!(%error, digest = descriptor.digest, "a download broke and is taken up again");
            self.env.sleep(RESUMPTION_PAUSE).await;
        }
        self.verify(descriptor, path).await
    }

    /// One request: from the end of the file on.
    async fn fetch(
        &self,
        descriptor: &Descriptor,
        path: &Path,
        before: u64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ImageError> {
        let blob = format!("blobs/sha256:{}", descriptor.hexadecimal()?);
        let from_byte = (before > 0).then_some(before);
        let mut response = self.get(&blob, &descriptor.digest, None, from_byte).await?;
        let is_rest = response.status() == StatusCode::PARTIAL_CONTENT && starts_at(&response, before);
        let start = if is_rest { before } else { 0 };
        let (sender, receiver) = mpsc::channel(DOWNLOAD_PIECES);
        let target = path.to_owned();
        let writing = self.env.blocking(move || write(&target, start, receiver));
        let reading = async move {
            let mut length = start;
            loop {
                let piece = match response.chunk().await {
                    Ok(Some(piece)) => piece,
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(self.unreachable(&error)),
                };
                length += piece.len() as u64;
                if length > descriptor.size {
                    let message =
                        format!("the blob {} is longer than its {} bytes", descriptor.digest, descriptor.size);
                    return Err(ImageError::Invalid(message));
                }
                progress(length);
                if sender.send(piece).await.is_err() {
                    // The writer says why.
                    return Ok(());
                }
            }
        };
        let (read, written) = futures::join!(reading, writing);
        let given_up = || io::Error::other("the work was given up");
        written.unwrap_or_else(|| Err(given_up())).map_err(|error| ImageError::io(path, error))?;
        read?;
        if length(path)? < descriptor.size {
            return Err(ImageError::Registry(format!("the registry ended the blob {} early", descriptor.digest)));
        }
        Ok(())
    }

    /// Reads the file again: what counts is what is on the disk.
    async fn verify(&self, descriptor: &Descriptor, path: &Path) -> Result<(), ImageError> {
        let expected = descriptor.hexadecimal()?.to_owned();
        let file = path.to_owned();
        let actual = self.env.blocking(move || digest_of(&file)).await;
        let actual = actual.unwrap_or_else(|| Err(io::Error::other("the work was given up")));
        let actual = actual.map_err(|error| ImageError::io(path, error))?;
        if actual != expected {
            files::remove_file(path).map_err(|error| ImageError::io(path, error))?;
            return Err(ImageError::Invalid(format!("the blob sha256:{expected} has the digest sha256:{actual}")));
        }
        Ok(())
    }
}

fn starts_at(response: &Response, first: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start == Some(first)
}

fn length(path: &Path) -> Result<u64, ImageError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(ImageError::io(path, error)),
    }
}

fn write(path: &PathBuf, start: u64, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    file.set_len(start)?;
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece)?;
    }
    file.flush()
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}
