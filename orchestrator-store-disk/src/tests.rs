//! What is no matter of an engine, on the plainest one: the suites, and what is checked when a directory is opened.

use std::{fs::File, path::Path, sync::Arc};

use libtest_mimic::Arguments;
use orchestrator_core::{
    env::{Env, Simulation},
    store::Store,
};
use orchestrator_store_mem::MemStore;

use crate::{
    Changes, DiskError, DiskStore, Engine, Flush, Limits, Place,
    open::{self, Migration, format, migrate, set_format},
    plain::Plain,
    record::{META_KEY, commit_key, damaged, piece_key, pointer_key, seal},
    suites,
    writes::Writes,
};

#[test]
fn the_plain_engine_passes_the_suites() {
    let reference = |env: &Env, limits: &Limits| -> Arc<dyn Store> {
        let Limits { history_commits, history_bytes, .. } = *limits;
        let limits = orchestrator_store_mem::Limits { history_commits, history_bytes, ..Default::default() };
        Arc::new(MemStore::with_limits(env, limits))
    };
    let arguments = Arguments { quiet: true, ..Arguments::default() };
    assert!(!libtest_mimic::run(&arguments, suites::trials::<Plain>(reference, false)).has_failed());
}

/// A directory with an empty store, which nobody has open.
fn made() -> tempfile::TempDir {
    let (simulation, directory) = (Simulation::new(1), tempfile::TempDir::new().unwrap());
    let open =
        async { DiskStore::<Plain>::open(&simulation.env(), directory.path(), Limits::default()).await.map(drop) };
    simulation.run(open).unwrap().unwrap();
    directory
}

fn flush() -> Flush {
    Arc::new(File::sync_data)
}

/// The engine in a directory, without a store above it.
fn engine(directory: &Path) -> Plain {
    let limits = Limits::default();
    let place = Place { directory: &directory.join("data"), is_new: false, limits: &limits, flush: flush() };
    Plain::open(place).unwrap()
}

fn open(directory: &Path) -> Result<(), DiskError> {
    open::open::<Plain>(directory, &Limits::default(), flush()).map(drop)
}

#[test]
fn an_unknown_format_is_refused() {
    for unknown in [0, 2, 99] {
        let directory = made();
        set_format(&mut engine(directory.path()), unknown, Writes::new(1000)).unwrap();
        let opened = open(directory.path());
        let Err(DiskError::UnknownFormat { found, known, .. }) = opened else { panic!("{opened:?}") };
        assert_eq!((found, known), (unknown, 1));
    }
}

#[test]
fn older_formats_are_brought_up_to_date_once() {
    fn add(engine: &mut dyn Engine, letter: &[u8]) -> Result<(), DiskError> {
        let old = engine.reader()?.get(b"steps")?.unwrap_or_default();
        engine.apply(vec![(b"steps".to_vec(), Some([&old, letter].concat()))])
    }
    let directory = made();
    let mut engine = engine(directory.path());
    let steps: [Migration; 2] = [|engine| add(engine, b"a"), |engine| add(engine, b"b")];
    migrate(&mut engine, directory.path(), &steps[..1]).unwrap();
    migrate(&mut engine, directory.path(), &steps).unwrap();
    migrate(&mut engine, directory.path(), &steps).unwrap();
    let written = engine.reader().unwrap().get(b"steps").unwrap();
    assert_eq!((written.as_deref(), format(&engine).unwrap()), (Some(b"ab".as_slice()), 3));
    let failing: [Migration; 3] = [steps[0], steps[1], |_| Err(damaged(b"steps"))];
    assert!(migrate(&mut engine, directory.path(), &failing).is_err());
    assert_eq!(format(&engine).unwrap(), 3, "a step that failed is not counted");
}

#[test]
fn a_record_that_is_missing_or_left_over_is_found() {
    let sealed = |key: Vec<u8>| -> Changes { vec![(key.clone(), Some(seal(&key, b"")))] };
    for (name, changes) in [
        ("a key too many", sealed(pointer_key("/a"))),
        ("a commit too many", sealed(piece_key(&commit_key(2), 0))),
        ("a record without a checksum", vec![(META_KEY.to_vec(), Some(Vec::new()))]),
        ("no record of where the store stands", vec![(META_KEY.to_vec(), None)]),
    ] {
        let directory = made();
        let mut engine = engine(directory.path());
        engine.apply(changes).unwrap();
        engine.flush().unwrap();
        let opened = open(directory.path());
        assert!(matches!(opened, Err(DiskError::Damaged(_))), "{name}: {opened:?}");
    }
}
