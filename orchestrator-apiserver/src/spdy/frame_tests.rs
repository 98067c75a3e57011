//! Frames there and back, and bytes that are none.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{super::dictionary::dictionary, Decoder, Encoder, Frame, FrameError, Headers, StreamId};
use crate::limits;

fn headers() -> impl Strategy<Value = Option<Headers>> {
    prop::collection::btree_map("[a-z:-]{1,12}", "\\PC{0,40}", 0..6)
        .prop_map(|headers| Some(Headers(headers.into_iter().collect())))
}

fn stream() -> impl Strategy<Value = StreamId> {
    0..=0x7fff_ffff_u32
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (stream(), headers(), any::<bool>(), any::<bool>()).prop_map(|(stream, headers, finished, unidirectional)| {
            Frame::SynStream { stream, headers, finished, unidirectional }
        }),
        (stream(), headers(), any::<bool>()).prop_map(|(stream, headers, finished)| Frame::SynReply {
            stream,
            headers,
            finished
        }),
        (stream(), headers(), any::<bool>()).prop_map(|(stream, headers, finished)| Frame::Headers {
            stream,
            headers,
            finished
        }),
        (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
        Just(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (stream(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (stream(), 0..=0x7fff_ffff_u32).prop_map(|(stream, bytes)| Frame::WindowUpdate { stream, bytes }),
        (stream(), prop::collection::vec(any::<u8>(), 0..200), any::<bool>())
            .prop_map(|(stream, data, finished)| Frame::Data { stream, data: data.into(), finished }),
    ]
}

/// Decodes bytes that come in pieces of these sizes, and puts data together again.
fn decode(bytes: &[u8], sizes: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::default();
    let mut frames: Vec<Frame> = Vec::new();
    let mut unfinished = false;
    let mut rest = bytes;
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = after;
        decoder.give(piece);
        while let Some(frame) = decoder.take()? {
            let left = decoder.data.is_some();
            match (frames.last_mut(), frame) {
                (Some(Frame::Data { data, finished, .. }), Frame::Data { data: more, finished: end, .. })
                    if unfinished =>
                {
                    *data = [&data[..], &more[..]].concat().into();
                    *finished = end;
                }
                (_, frame) => frames.push(frame),
            }
            unfinished = left;
        }
        assert!(decoder.waiting() <= limits::SPDY_CONTROL_BYTES + super::PREFIX_BYTES + piece.len());
    }
    Ok(frames)
}

fn encode(frames: &[Frame]) -> BytesMut {
    let mut encoder = Encoder::default();
    let mut bytes = BytesMut::new();
    for frame in frames {
        encoder.put(frame, &mut bytes);
    }
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        frames in prop::collection::vec(frame(), 0..12),
        sizes in prop::collection::vec(1..300_usize, 1..8),
    ) {
        prop_assert_eq!(decode(&encode(&frames), &sizes), Ok(frames));
    }

    #[test]
    fn nothing_is_read_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        // It ends, it does not panic, and what it keeps is bounded.
        let _ = decode(&bytes, &[7, 300]);
    }

    #[test]
    fn a_changed_byte_is_survived(
        frames in prop::collection::vec(frame(), 1..6), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encode(&frames);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes, &[64]);
    }
}

/// A frame that opens stream 1 with a block of these bytes.
fn open_with(block: &[u8]) -> Vec<u8> {
    let mut packed = flate2::Compress::new(flate2::Compression::best(), true);
    packed.set_dictionary(&dictionary()).unwrap();
    let mut payload = [&1_u32.to_be_bytes()[..], &[0; 6]].concat();
    let mut compressed = Vec::with_capacity(block.len() + 1000);
    packed.compress_vec(block, &mut compressed, flate2::FlushCompress::Sync).unwrap();
    payload.extend(compressed);
    let mut frame = vec![0x80, 3, 0, 1, 0];
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    frame.extend(payload);
    frame
}

fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Headers(headers.collect()).write()
}

#[test]
fn headers_that_make_no_sense_spoil_their_stream_only() {
    for bad in [&[("Upper", "x")][..], &[("", "x")], &[("a", "x"), ("a", "y")]] {
        let frames = decode(&open_with(&block(bad)), &[1000]).unwrap();
        assert!(matches!(frames[..], [Frame::SynStream { headers: None, .. }]), "{bad:?}: {frames:?}");
    }
    let many: Vec<(String, String)> = (0..=limits::SPDY_HEADERS).map(|at| (format!("h{at}"), String::new())).collect();
    let frames = decode(&open_with(&Headers(many).write()), &[5000]).unwrap();
    assert!(matches!(frames[..], [Frame::SynStream { headers: None, .. }]));
}

#[test]
fn lies_are_refused() {
    let cases: [(&str, Vec<u8>, FrameError); 9] = [
        ("HTTP", b"GET / HTTP/1.1\r\n".iter().copied().map(|byte| byte | 0x80).collect(), FrameError::Version(0x47c5)),
        ("version 2", vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], FrameError::Version(2)),
        ("a short ping", vec![0x80, 3, 0, 6, 0, 0, 0, 3, 0, 0, 0], FrameError::Malformed(6)),
        ("a ping with flags", vec![0x80, 3, 0, 6, 1, 0, 0, 4, 0, 0, 0, 1], FrameError::Malformed(6)),
        ("a stream without a block", vec![0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], FrameError::Malformed(1)),
        ("16 MiB of headers", vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], FrameError::TooLarge),
        ("a bomb", open_with(&vec![0; 8 << 20]), FrameError::TooLarge),
        ("more headers than there are", open_with(&[0xff; 4]), FrameError::Headers),
        ("a name that is too long", open_with(&[0, 0, 0, 1, 0x7f, 0, 0, 0, b'x']), FrameError::Headers),
    ];
    for (what, bytes, error) in cases {
        assert_eq!(decode(&bytes, &[bytes.len()]), Err(error), "{what}");
    }
    assert_eq!(
        decode(&[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], &[9]),
        Err(FrameError::Headers)
    );
}

#[test]
fn what_is_not_known_is_skipped() {
    let mut bytes = vec![0x80, 3, 0x12, 0x34, 0, 0, 0, 2, 1, 2];
    bytes.extend_from_slice(&encode(&[Frame::Ping(7)]));
    assert_eq!(decode(&bytes, &[3]), Ok(vec![Frame::Ping(7)]));
}

#[test]
fn long_data_is_handed_out_as_it_comes() {
    let mut decoder = Decoder::default();
    decoder.give(&[0, 0, 0, 1, 1, 0xff, 0xff, 0xff]);
    let mut handed_out = 0;
    for _ in 0..0xff {
        decoder.give(&[7; 1 << 16]);
        while let Some(Frame::Data { data, finished, .. }) = decoder.take().unwrap() {
            handed_out += data.len();
            assert!(!finished);
        }
        assert_eq!(decoder.waiting(), 0);
    }
    decoder.give(&[7; 0xffff]);
    let last = decoder.take().unwrap();
    assert_eq!(last, Some(Frame::Data { stream: 1, data: Bytes::from(vec![7; 0xffff]), finished: true }));
    assert_eq!(handed_out, 0xff << 16);
}
