//! A snapshot that is not what was written is refused, wherever it is broken.

use bytes::Bytes;
use orchestrator_core::{
    env::{Env, Simulation},
    store::{
        Batch, Key, KeyRange, ListOptions, Revision, Store, StoreError,
        snapshot::{self, FORMAT_VERSION, SnapshotError, Summary},
    },
};
use orchestrator_store_mem::{Limits, MemStore};

const ENTRIES: [(&str, &str); 3] = [("/a", "one"), ("/b", ""), ("/b/c", "another value")];

/// Runs something on a store with a few entries and their snapshot.
fn with_snapshot(run: impl AsyncFn(&Env, &MemStore, Vec<u8>)) {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let done = simulation.run(async {
        let store = MemStore::new(&env);
        for (key, value) in ENTRIES {
            store.commit(Batch::create(Key::new(key), Bytes::from(value))).await.unwrap();
        }
        let mut bytes = Vec::new();
        let summary = snapshot::write(&store, &mut bytes).await.unwrap();
        assert_eq!(summary, Summary { revision: Revision(4), entries: 3 });
        run(&env, &store, bytes).await;
    });
    done.unwrap();
}

#[test]
fn a_flipped_bit_is_seen_wherever_it_is() {
    with_snapshot(async |env, _, bytes| {
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let error = snapshot::verify(&damaged[..]).await.unwrap_err();
            match (at, &error) {
                (..8, SnapshotError::Foreign) | (8..12, SnapshotError::Version(_)) => {}
                // A length that was damaged may point behind the end.
                (12.., SnapshotError::Damaged { .. } | SnapshotError::Truncated) => {}
                _ => panic!("byte {at}: {error:?}"),
            }
            assert!(snapshot::restore(&damaged[..], &MemStore::new(env)).await.is_err());
        }
    });
}

#[test]
fn a_snapshot_that_is_cut_off_is_seen_wherever_it_ends() {
    with_snapshot(async |_, _, bytes| {
        for length in 0..bytes.len() {
            match (length, snapshot::verify(&bytes[..length]).await) {
                (..8, Err(SnapshotError::Foreign)) | (8.., Err(SnapshotError::Truncated)) => {}
                (_, answer) => panic!("{length} bytes: {answer:?}"),
            }
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(matches!(snapshot::verify(&longer[..]).await, Err(SnapshotError::Damaged { .. })));
    });
}

#[test]
fn pieces_that_are_moved_lost_or_repeated_are_seen() {
    with_snapshot(async |_, _, bytes| {
        // A beginning of 24 bytes, then pieces of 12 bytes beside key and value.
        let mut places = vec![24];
        for (key, value) in ENTRIES {
            places.push(places[places.len() - 1] + 12 + key.len() + value.len());
        }
        let piece = |index: usize| &bytes[places[index]..places[index + 1]];
        let (begin, end) = (&bytes[..24], &bytes[places[3]..]);
        assert_eq!([begin, piece(0), piece(1), piece(2), end].concat(), bytes);
        for wrong in [
            [begin, piece(1), piece(0), piece(2), end].concat(),
            [begin, piece(0), piece(2), end].concat(),
            [begin, piece(0), piece(1), piece(1), piece(2), end].concat(),
            [begin, end].concat(),
        ] {
            let error = snapshot::verify(&wrong[..]).await.unwrap_err();
            assert!(matches!(error, SnapshotError::Damaged { .. }), "{error:?}");
        }
    });
}

#[test]
fn other_files_and_versions_are_refused() {
    with_snapshot(async |_, _, mut bytes| {
        for foreign in [&b""[..], b"{}", b"SQLite format 3\0 and so on"] {
            assert!(matches!(snapshot::verify(foreign).await, Err(SnapshotError::Foreign)));
        }
        bytes[8] += 1;
        let newer = snapshot::verify(&bytes[..]).await;
        assert!(matches!(newer, Err(SnapshotError::Version(version)) if version == FORMAT_VERSION + 1), "{newer:?}");
    });
}

#[test]
fn a_copy_has_what_the_store_had() {
    with_snapshot(async |env, store, _| {
        let copy = MemStore::new(env);
        let summary = snapshot::copy(store, &copy).await.unwrap();
        assert_eq!(summary, Summary { revision: Revision(4), entries: 3 });
        let listing = copy.list(&KeyRange::prefix(""), ListOptions::default()).await.unwrap();
        let found: Vec<_> = listing.entries.iter().map(|entry| (entry.key.as_str(), &entry.value[..])).collect();
        assert_eq!(found, ENTRIES.map(|(key, value)| (key, value.as_bytes())));
        assert!(matches!(snapshot::copy(store, &copy).await, Err(SnapshotError::NotEmpty { keys: 3 })));
    });
}

#[test]
fn a_store_that_fails_and_a_full_disk_are_told() {
    with_snapshot(async |env, store, bytes| {
        let small = MemStore::with_limits(env, Limits { value_bytes: 5, ..Limits::default() });
        let refused = snapshot::restore(&bytes[..], &small).await;
        assert!(matches!(refused, Err(SnapshotError::Store(StoreError::Refused(_)))), "{refused:?}");

        let mut room = [0; 40];
        let full = snapshot::write(store, std::io::Cursor::new(&mut room[..])).await;
        assert!(matches!(full, Err(SnapshotError::Stream(_))), "{full:?}");
    });
}
