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
    limits::{IMAGE_LOAD_TIME, LOAD_ATTEMPTS, UPLOAD_CHUNK_BYTES, UPLOAD_CHUNKS},
};

/// Loads an image; the engine will know it by this reference.
pub(super) async fn load(engine: &Engine, parts: Parts, reference: &str) -> Result<(), EngineError> {
    let mut parts = Some(parts);
    for _ in 1..LOAD_ATTEMPTS {
        match try_to_load(engine, &mut parts, reference).await {
            // Podman takes a layer for one that it has, and somebody removes it meanwhile.
            Err(EngineError::Refused { message, .. }) if message.contains("layer not known") => {}
            loaded => return loaded,
        }
    }
    try_to_load(engine, &mut parts, reference).await
}

/// The parts come back from wherever they were written.
async fn try_to_load(engine: &Engine, known: &mut Option<Parts>, reference: &str) -> Result<(), EngineError> {
    let Some(mut parts) = known.take() else {
        return Err(EngineError::Broken("an image could not be written again".to_owned()));
    };
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
        parts
    });
    let body = unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) });
    let progress = client.import_image_stream(ImportImageOptions { quiet: true, platform: None }, body, None);
    let (written, answers) = futures::join!(write, engine.drain(IMAGE_LOAD_TIME, progress));
    *known = written;
    for answer in answers? {
        if let Some(message) = answer.error_detail.and_then(|detail| detail.message) {
            return Err(EngineError::refused(500, &message));
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
