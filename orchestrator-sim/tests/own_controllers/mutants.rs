//! Bugs of informers, loops, controllers and the scheduler, planted one at a time: exploring finds every one of them.
//!
//! `docs/controller-mutants.md` says which scene finds which; it is made by this test with `-- --ignored`, and held against it
//! without.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use orchestrator_core::{
    client::{Call, DeleteOptions, PatchBody, Propagation, Reply, Request, WatchEvent},
    controller::Action,
    object::{Object, ObjectKey},
    scheduler::{Snapshot, Unschedulable, Verdict},
    status::{ApiError, ApiResult},
};
use orchestrator_sim::explore::{Explorer, Failure};
use serde_json::{Value, json};

use crate::{
    planted::{Memory, Plant},
    scenes,
};

/// With those planted into stores (`docs/store-mutants.md`) there are far more than sixty.
const BUGS_MIN: usize = 30;

/// A bug, and where it is to be found.
struct Bug {
    /// Which part has it.
    part: &'static str,
    /// What the part does.
    name: &'static str,
    plant: Plant,
    scene: (&'static str, fn(Option<Plant>) -> Explorer),
}

/// What finds a bug.
struct Find {
    property: String,
    faults: String,
    runs: usize,
}

macro_rules! bug {
    ($part:literal $name:literal $scene:ident $plant:expr) => {
        Bug { part: $part, name: $name, plant: $plant, scene: (stringify!($scene), scenes::$scene) }
    };
}

const BUGS: &[Bug] = &[
    bug!("informer" "loses every third event" replica_sets Plant::Event(every_third_lost)),
    bug!("informer" "does not hear of deletions" deployments Plant::Event(no_deletions)),
    bug!("informer" "takes a deletion for a change" replica_sets Plant::Event(deletions_are_changes)),
    bug!("informer" "hears of changes of what is there only" endpoint_slices Plant::Event(no_additions)),
    bug!("informer" "hears of each event with the next one" replica_sets Plant::Event(one_behind)),
    bug!("informer" "overlooks the last object of a list" copies Plant::Answer(list_without_last)),
    bug!("informer" "follows no watch that it has to begin anew" replica_sets Plant::Deaf),
    bug!("loop" "takes a failure for a success" copies Plant::End(|_, _, end| end.or(Ok(Action::Done)))),
    bug!("loop" "gives a key up after two runs" copies Plant::Run(|memory, key, _| memory.count(key) <= 2)),
    bug!("loop" "runs a key once" copies Plant::Run(|memory, key, _| memory.count(key) == 1)),
    bug!("loop" "runs for every other change" copies Plant::Run(|memory, key, _| memory.count(key) % 2 == 1)),
    bug!("loop" "forgets what is to be done later" copies Plant::End(nothing_later)),
    bug!("loop" "passes over a key" copies Plant::Run(|_, key, _| key.name != "c")),
    bug!("controller" "takes whatever it asked for as done" deployments Plant::Answer(failures_are_successes)),
    bug!("controller" "takes a conflict for a success" replica_sets Plant::Answer(conflicts_are_successes)),
    bug!("controller" "deletes nothing" replica_sets Plant::Ask(no_deletion)),
    bug!("controller" "never tells a status" replica_sets Plant::Ask(no_status)),
    bug!("controller" "tells one replica too many" deployments Plant::Ask(one_replica_too_many)),
    bug!("controller" "does not tell what it has observed" replica_sets Plant::Ask(nothing_observed)),
    bug!("controller" "asks for one replica too many" deployments Plant::Ask(one_more_asked_for)),
    bug!("controller" "lets go of nothing that it holds" jobs Plant::Ask(finalizers_kept)),
    bug!("controller" "leaves behind what belonged to the deleted" garbage Plant::Ask(no_deletion)),
    bug!("controller" "ends a namespace with things in it" namespaces Plant::Ask(no_collection)),
    bug!("controller" "names its pods in its own way" stateful_sets Plant::Ask(other_names)),
    bug!("controller" "leaves one endpoint out" endpoint_slices Plant::Ask(one_endpoint_less)),
    bug!("controller" "keeps the pods of before" daemon_sets Plant::Ask(no_deletion)),
    bug!("scheduler" "takes the first node, full or not" the_scheduler Plant::Verdict(first_node)),
    bug!("scheduler" "finds no node that is good enough" the_scheduler Plant::Verdict(no_node)),
    bug!("scheduler" "binds to the first node, whatever it decided" the_scheduler Plant::Ask(bound_elsewhere)),
    bug!("scheduler" "takes a binding that failed for done" the_scheduler Plant::Answer(failures_are_successes)),
    bug!("scheduler" "does not hear of new nodes" the_scheduler Plant::Event(no_additions)),
];

fn every_third_lost(number: usize, event: WatchEvent, _: &mut Option<WatchEvent>) -> Vec<WatchEvent> {
    if number.is_multiple_of(3) { Vec::new() } else { vec![event] }
}

fn no_deletions(_: usize, event: WatchEvent, _: &mut Option<WatchEvent>) -> Vec<WatchEvent> {
    if matches!(event, WatchEvent::Deleted(_)) { Vec::new() } else { vec![event] }
}

fn no_additions(_: usize, event: WatchEvent, _: &mut Option<WatchEvent>) -> Vec<WatchEvent> {
    if matches!(event, WatchEvent::Added(_)) { Vec::new() } else { vec![event] }
}

fn deletions_are_changes(_: usize, event: WatchEvent, _: &mut Option<WatchEvent>) -> Vec<WatchEvent> {
    vec![match event {
        WatchEvent::Deleted(object) => WatchEvent::Modified(object),
        other => other,
    }]
}

fn one_behind(_: usize, event: WatchEvent, held: &mut Option<WatchEvent>) -> Vec<WatchEvent> {
    held.replace(event).into_iter().collect()
}

fn list_without_last(_: &Request, mut answer: ApiResult<Reply>) -> ApiResult<Reply> {
    if let Ok(Reply::List { items, .. }) = &mut answer {
        items.pop();
    }
    answer
}

fn nothing_later(_: &Memory, _: &ObjectKey, end: ApiResult<Action>) -> ApiResult<Action> {
    end.map(|_| Action::Done)
}

/// What was sent, as if it were there.
fn sent(request: &Request) -> Option<Reply> {
    match &request.call {
        Call::Create { object, .. } | Call::Replace { object, .. } => {
            Some(Reply::Object { object: object.clone(), created: false, warnings: Vec::new() })
        }
        _ => None,
    }
}

fn failures_are_successes(request: &Request, answer: ApiResult<Reply>) -> ApiResult<Reply> {
    answer.or_else(|error| sent(request).ok_or(error))
}

fn conflicts_are_successes(request: &Request, answer: ApiResult<Reply>) -> ApiResult<Reply> {
    answer.or_else(|error: ApiError| if error.is_conflict() { sent(request).ok_or(error) } else { Err(error) })
}

fn no_deletion(_: &Memory, request: Request) -> Option<Request> {
    (!matches!(request.call, Call::Delete(_))).then_some(request)
}

fn no_collection(_: &Memory, request: Request) -> Option<Request> {
    match request.call {
        // What is there stays there, and belongs to nobody.
        Call::DeleteCollection(options, list) => {
            let options = DeleteOptions { dry_run: true, propagation: Some(Propagation::Orphan), ..options };
            Some(Request { call: Call::DeleteCollection(options, list), ..request })
        }
        Call::Delete(_) => None,
        _ => Some(request),
    }
}

fn no_status(_: &Memory, request: Request) -> Option<Request> {
    (request.subresource.as_deref() != Some("status")).then_some(request)
}

/// The request with another body.
fn with_body(mut request: Request, change: impl FnOnce(&mut Value)) -> Request {
    match &mut request.call {
        Call::Create { object, .. } | Call::Replace { object, .. } => {
            let mut tree = object.to_tree().unwrap();
            change(&mut tree);
            *object = Object::from_tree(tree);
        }
        Call::Patch { patch, .. } => {
            let (PatchBody::Json(tree) | PatchBody::Merge(tree) | PatchBody::Strategic(tree) | PatchBody::Apply(tree)) =
                patch;
            change(tree);
        }
        _ => {}
    }
    request
}

/// The request with something taken out of its body, or changed in it.
fn at(request: Request, pointer: &str, change: impl FnOnce(&mut Value)) -> Option<Request> {
    Some(with_body(request, |tree| {
        if let Some(found) = tree.pointer_mut(pointer) {
            change(found);
        }
    }))
}

fn one_more(number: &mut Value) {
    if let Some(there) = number.as_i64() {
        *number = json!(there + 1);
    }
}

fn one_replica_too_many(_: &Memory, request: Request) -> Option<Request> {
    at(request, "/status/updatedReplicas", one_more)
}

fn nothing_observed(_: &Memory, request: Request) -> Option<Request> {
    at(request, "/status/observedGeneration", |there| *there = json!(0))
}

fn one_more_asked_for(_: &Memory, request: Request) -> Option<Request> {
    if request.resource.plural == "replicasets" { at(request, "/spec/replicas", one_more) } else { Some(request) }
}

fn finalizers_kept(_: &Memory, request: Request) -> Option<Request> {
    let is_write = matches!(request.call, Call::Patch { .. } | Call::Replace { .. });
    (!(is_write && request.resource.plural == "pods")).then_some(request)
}

fn other_names(_: &Memory, request: Request) -> Option<Request> {
    if matches!(request.call, Call::Create { .. }) && request.resource.plural == "pods" {
        return at(request, "/metadata/name", |there| {
            *there = json!(format!("x{}", there.as_str().unwrap_or_default()))
        });
    }
    Some(request)
}

fn one_endpoint_less(_: &Memory, request: Request) -> Option<Request> {
    at(request, "/endpoints", |there| {
        if let Some(endpoints) = there.as_array_mut() {
            endpoints.pop();
        }
    })
}

fn first_node(cluster: &Snapshot, verdict: Verdict) -> Verdict {
    cluster.nodes().next().map_or(verdict, |node| Verdict::Node(node.name().to_owned()))
}

fn no_node(cluster: &Snapshot, _: Verdict) -> Verdict {
    Unschedulable::new(cluster.len()).into()
}

fn bound_elsewhere(_: &Memory, request: Request) -> Option<Request> {
    at(request, "/target/name", |there| *there = json!("one"))
}

/// Explores a scene with a bug, or without one.
fn explore(scene: fn(Option<Plant>) -> Explorer, plant: Plant) -> Option<Find> {
    let runs = Arc::new(AtomicUsize::new(0));
    let told = runs.clone();
    let explorer = scene(Some(plant)).as_found().tells(move |progress| told.store(progress.runs, Ordering::Relaxed));
    match explorer.run() {
        Err(Failure::Broken(found)) => {
            let property = found.property.clone();
            if found.plan.faults.is_empty() {
                return Some(Find { property, faults: "none".to_owned(), runs: 1 });
            }
            // The one in which all goes well, those that were told of, and this one.
            let runs = runs.load(Ordering::Relaxed).max(1) + 1;
            Some(Find { property, faults: format!("`{}`", found.plan), runs })
        }
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

/// What finds each bug, in their order.
fn finds() -> Vec<Option<Find>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(bug) = BUGS.get(index) else { return done };
            done.push((index, explore(bug.scene.1, bug.plant)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, find)| find).collect()
}

const HEAD: &str = "# Planted bugs of informers, loops, controllers and the scheduler\n\n\
    Each bug is planted alone, between a part that is right and what it reads, writes or is told, and a scene of\n\
    `orchestrator-sim/tests/own_controllers` is explored with it. Runs are those that it took when the table was\n\
    made. It is made by `cargo test -p orchestrator-sim --test own_controllers -- --ignored`.\n\n\
    | part | what it does | scene | what does not hold | faults it takes | runs |\n|---|---|---|---|---|---|\n";

/// The part of a line that does not change with every request that a controller makes more or less.
fn begin_of_line(bug: &Bug) -> String {
    format!("| {} | {} | `{}` |", bug.part, bug.name, bug.scene.0)
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/controller-mutants.md")
}

#[test]
fn every_bug_is_found() {
    assert!(BUGS.len() >= BUGS_MIN);
    let missed: Vec<_> = BUGS.iter().zip(finds()).filter(|(_, find)| find.is_none()).map(|(bug, _)| bug.name).collect();
    assert_eq!(missed, [""; 0]);
    let written = std::fs::read_to_string(document()).unwrap();
    let lines: Vec<&str> = written.lines().skip(HEAD.lines().count()).collect();
    let told = BUGS.iter().zip(&lines).all(|(bug, line)| line.starts_with(&begin_of_line(bug)));
    assert!(told && lines.len() == BUGS.len(), "docs/controller-mutants.md is not of these bugs");
}

#[test]
#[ignore = "it writes docs/controller-mutants.md"]
fn write_the_table() {
    let mut text = HEAD.to_owned();
    for (bug, find) in BUGS.iter().zip(finds()) {
        let Find { property, faults, runs } = find.unwrap_or_else(|| panic!("not found: {}", bug.name));
        text.push_str(&format!("{} {property} | {faults} | {runs} |\n", begin_of_line(bug)));
    }
    std::fs::write(document(), text).unwrap();
}
