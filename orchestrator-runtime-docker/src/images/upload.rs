//! Sends an archive to the engine while it is written.

use std::io::{self, BufWriter, Write};

use bollard::query_parameters::ImportImageOptions;
use bytes::Bytes;
use futures::stream::unfold;
use orchestrator_images::Parts;
use tokio::sync::mpsc;

use crate::{
    engine::Engine,
    error::EngineError,
    limits::{IMAGE_LOAD_TIME, UPLOAD_CHUNK_BYTES, UPLOAD_CHUNKS},
};

/// Loads an image; the engine will know it by this reference.
pub(super) async fn load(engine: &Engine, mut parts: Parts, reference: &str) -> Result<(), EngineError> {
    let client = engine.client().await?.with_timeout(IMAGE_LOAD_TIME);
    let (sender, receiver) = mpsc::channel(UPLOAD_CHUNKS);
    let reference = reference.to_owned();
    let write = engine.env.blocking(move || {
        let mut out = BufWriter::with_capacity(UPLOAD_CHUNK_BYTES, Pieces(sender.clone()));
        let written = parts.write(&reference, &mut out).and_then(|()| out.flush());
        if let Err(error) = written {
            // The engine must not take the half of it for the whole. Nobody is there any more if it hung up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let body = unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) });
    let progress = client.import_image_stream(ImportImageOptions { quiet: true, platform: None }, body, None);
    let (_, answers) = futures::join!(write, engine.drain(IMAGE_LOAD_TIME, progress));
    for answer in answers? {
        if let Some(message) = answer.error_detail.and_then(|detail| detail.message) {
            return Err(EngineError::Refused { status: 500, message });
        }
    }
    Ok(())
}

/// Passes on what is written to it, in pieces.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
