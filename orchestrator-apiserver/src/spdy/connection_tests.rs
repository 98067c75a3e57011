//! Streams as frames open and end them.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Connection, Event, Frame, FrameError, Headers, StreamId, status};
use crate::limits;

fn open(stream: StreamId) -> Frame {
    Frame::SynStream { stream, headers: Some(Headers::default()), finished: false, unidirectional: false }
}

fn data(stream: StreamId, text: &'static str, finished: bool) -> Frame {
    Frame::Data { stream, data: Bytes::from_static(text.as_bytes()), finished }
}

fn refused(stream: StreamId, status: u32) -> Event {
    Event::Answer(Frame::RstStream { stream, status })
}

#[test]
fn a_stream_from_its_opening_to_its_end() {
    let mut connection = Connection::default();
    assert_eq!(connection.receive(open(1)), Ok(vec![Event::Opened(1, Headers::default())]));
    assert!(matches!(connection.accept(1), Some(Frame::SynReply { stream: 1, finished: false, .. })));
    assert_eq!(connection.receive(data(1, "a", false)), Ok(vec![Event::Data(1, "a".into())]));
    assert_eq!(connection.receive(data(1, "b", true)), Ok(vec![Event::Data(1, "b".into()), Event::Finished(1)]));
    // One direction is closed; the other one is not.
    assert!(connection.send(1, "c".into()).is_some() && connection.is_open(1));
    assert_eq!(connection.finish(1), Some(data(1, "", true)));
    assert!(!connection.is_open(1));
    let nothing = (connection.send(1, "d".into()), connection.finish(1), connection.reset(1, status::CANCEL));
    assert_eq!(nothing, (None, None, None));
    assert_eq!(connection.go_away(), Frame::GoAway { last: 1, status: 0 });
}

#[test]
fn what_is_out_of_place_is_answered() {
    let mut connection = Connection::default();
    let answers = |connection: &mut Connection, frame| connection.receive(frame).unwrap();
    assert_eq!(answers(&mut connection, data(5, "x", false)), [refused(5, status::INVALID_STREAM)]);
    let spoilt = Frame::SynStream { stream: 1, headers: None, finished: false, unidirectional: false };
    assert_eq!(answers(&mut connection, spoilt), [refused(1, status::PROTOCOL_ERROR)]);
    answers(&mut connection, open(3));
    answers(&mut connection, data(3, "", true));
    let late = answers(&mut connection, data(3, "x", false));
    assert_eq!(late, [Event::Reset(3), refused(3, status::STREAM_ALREADY_CLOSED)]);
    // Of a stream that has ended some may still be on its way.
    assert_eq!(answers(&mut connection, data(3, "x", false)), []);
    assert_eq!(answers(&mut connection, Frame::RstStream { stream: 3, status: status::CANCEL }), []);
    assert_eq!(answers(&mut connection, Frame::Ping(3)), [Event::Answer(Frame::Ping(3))]);
    assert_eq!(answers(&mut connection, Frame::Ping(2)), []);
    for id in [3, 1, 0, 8] {
        assert_eq!(connection.receive(open(id)), Err(FrameError::StreamId(id)));
    }
    // Who may not be answered is not.
    let silent =
        Frame::SynStream { stream: 9, headers: Some(Headers::default()), finished: true, unidirectional: true };
    assert_eq!(answers(&mut connection, silent), [Event::Opened(9, Headers::default()), Event::Finished(9)]);
    assert_eq!(connection.accept(9), None);
}

#[test]
fn streams_have_a_bound() {
    let mut connection = Connection::default();
    let ids = (1..).step_by(2);
    for id in ids.take(limits::SPDY_STREAMS) {
        assert!(matches!(connection.receive(open(id)).unwrap()[..], [Event::Opened(..)]));
    }
    let next = u32::try_from(limits::SPDY_STREAMS * 2 + 1).unwrap();
    assert_eq!(connection.receive(open(next)), Ok(vec![refused(next, status::REFUSED_STREAM)]));
    connection.reset(1, status::CANCEL);
    assert!(matches!(connection.receive(open(next + 2)).unwrap()[..], [Event::Opened(..)]));
}

/// What happens to a stream.
#[derive(Clone, Debug)]
enum Step {
    Receive(Frame),
    Finish(StreamId),
    Reset(StreamId),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1..12_u32;
    prop_oneof![
        3 => id.clone().prop_map(|id| Step::Receive(open(id))),
        3 => (id.clone(), any::<bool>()).prop_map(|(id, finished)| Step::Receive(data(id, "x", finished))),
        1 => id.clone().prop_map(|stream| Step::Receive(Frame::RstStream { stream, status: 5 })),
        2 => id.clone().prop_map(Step::Finish),
        1 => id.prop_map(Step::Reset),
    ]
}

proptest! {
    /// Streams end once; nothing comes from a stream before its opening or after its end; what is open is told the truth of.
    #[test]
    fn events_are_in_order(steps in prop::collection::vec(step(), 0..60)) {
        let mut connection = Connection::default();
        // For each stream that was opened: whether more may come from it.
        let mut model: BTreeMap<StreamId, bool> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Receive(frame) => for event in connection.receive(frame).unwrap_or_default() {
                    match event {
                        Event::Opened(id, _) => prop_assert_eq!(model.insert(id, true), None),
                        Event::Data(id, _) => prop_assert_eq!(model.get(&id), Some(&true)),
                        Event::Finished(id) => prop_assert_eq!(model.insert(id, false), Some(true)),
                        Event::Reset(id) => prop_assert!(model.insert(id, false).is_some()),
                        Event::Answer(_) => {}
                    }
                },
                Step::Finish(id) => {
                    let open = connection.is_open(id);
                    prop_assert!(connection.finish(id).is_none() || open);
                    prop_assert_eq!(connection.send(id, "x".into()), None);
                }
                Step::Reset(id) => {
                    prop_assert_eq!(connection.is_open(id), connection.reset(id, 5).is_some());
                    prop_assert!(!connection.is_open(id));
                    model.entry(id).and_modify(|more| *more = false);
                }
            }
            prop_assert!(model.iter().all(|(id, more)| !more || connection.is_open(*id)));
        }
    }
}
