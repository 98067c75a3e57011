//! SPDY: what a client may send, in pieces of any size.
#![no_main]

use orchestrator_apiserver::spdy::{Connection, Decoder, Event, status};

/// More than a decoder may keep of a frame that is not complete.
const KEPT: usize = 20 << 10;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((size, data)) = data.split_first() else { return };
    let (mut decoder, mut connection) = (Decoder::default(), Connection::default());
    for piece in data.chunks(usize::from(*size) + 1) {
        decoder.give(piece);
        loop {
            match decoder.take().and_then(|frame| frame.map(|frame| connection.receive(frame)).transpose()) {
                Ok(Some(events)) => events.into_iter().for_each(|event| answer(&mut connection, event)),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.waiting() < KEPT);
    }
});

fn answer(connection: &mut Connection, event: Event) {
    match event {
        Event::Opened(id, headers) if headers.get("streamtype") == "error" => drop(connection.accept(id)),
        Event::Opened(id, _) => drop(connection.reset(id, status::REFUSED_STREAM)),
        Event::Data(id, data) => assert!(connection.is_open(id) || !data.is_empty()),
        Event::Finished(id) => drop(connection.finish(id)),
        Event::Reset(id) => assert!(!connection.is_open(id)),
        Event::Answer(_) => {}
    }
}
