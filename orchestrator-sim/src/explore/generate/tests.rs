//! The examples, and what is drawn from them, before the server.

use std::collections::BTreeSet;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::CustomResource;
use orchestrator_core::client::{Call, Request, ResourceInfo, WriteOptions};
use orchestrator_core::object::Object;
use proptest::{strategy::ValueTree, test_runner::TestRunner};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::explore::{drawn::Judge, world::Base};

/// Where the objects of an example are: kinds of the same name share their storage and their plural name.
fn resource_of(served: &[ResourceInfo], version: &str, kind: &str) -> Option<ResourceInfo> {
    let of_kind = || served.iter().filter(|info| info.kind == kind);
    let same = of_kind().find(|info| info.resource.api_version() == version);
    let mut info = same.or_else(|| of_kind().next())?.clone();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    info.resource = Resource::new(group.to_owned(), version.to_owned(), info.resource.plural);
    Some(info)
}

fn create(info: &ResourceInfo, tree: Value) -> Request {
    let namespace = info.namespaced.then(|| "default".to_owned());
    let call = Call::Create { object: Object::from_tree(tree), options: WriteOptions::default() };
    Request { user: None, resource: info.resource.clone(), namespace, name: None, subresource: None, call }
}

#[test]
fn every_built_in_kind_has_an_example_that_the_server_takes() {
    let base = Base::new(&[]).unwrap();
    let judge = Judge::of(&base).unwrap();
    let served = judge.kinds().unwrap();
    let mut wrong = Vec::new();
    for info in served.iter().filter(|info| info.supports(&["create", "get", "list"])) {
        if !EXAMPLES.contains_key(&(info.resource.api_version(), info.kind.clone())) {
            wrong.push(format!("{} has no example", info.kind));
        }
    }
    for ((version, kind), example) in EXAMPLES.iter() {
        let info = resource_of(&served, version, kind).unwrap_or_else(|| panic!("{kind} of {version} is not served"));
        if let Err(error) = judge.takes(&create(&info, example.clone())).unwrap() {
            wrong.push(format!("{kind} of {version}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_kind_has_many_objects_that_the_server_takes() {
    let base = Base::new(&[]).unwrap();
    let judge = Judge::of(&base).unwrap();
    let served = judge.kinds().unwrap();
    let (mut runner, mut few) = (TestRunner::deterministic(), Vec::new());
    for ((version, kind), example) in EXAMPLES.iter() {
        let info = resource_of(&served, version, kind).unwrap();
        let strategy = trees_like(example.clone());
        let taken = (0..40).filter(|_| {
            let tree = strategy.new_tree(&mut runner).unwrap().current();
            tree != *example && judge.takes(&create(&info, tree)).unwrap().is_ok()
        });
        let taken = taken.count();
        if taken < 2 {
            few.push(format!("{taken} of 40 objects of {kind} in {version}"));
        }
    }
    assert!(few.is_empty(), "{few:#?}");
}

#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Thing", namespaced)]
struct ThingSpec {
    #[schemars(range(min = 2, max = 9))]
    size: u8,
    mode: Mode,
    names: Vec<String>,
    note: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
enum Mode {
    Fast,
    Slow,
}

#[test]
fn custom_kinds_are_drawn_by_their_schema() {
    let strategy = custom::<Thing>("one").unwrap();
    let mut runner = TestRunner::deterministic();
    let drawn: Vec<Thing> = (0..300).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    assert!(drawn.iter().all(|thing| thing.metadata.name.as_deref() == Some("one")));
    let sizes: BTreeSet<u8> = drawn.iter().map(|thing| thing.spec.size).collect();
    assert!(sizes.len() > 3 && sizes.contains(&2), "{sizes:?}");
    assert!(drawn.iter().any(|thing| thing.spec.names.len() == 2));
    assert!(drawn.iter().any(|thing| thing.spec.note.is_none()));
}

#[test]
fn kinds_that_are_not_built_in_have_no_example() {
    assert!(example::<Deployment>().is_ok());
    assert!(example::<ConfigMap>().unwrap().data.is_some());
    let unknown = NoExample::Unknown("Thing of example.com/v1".to_owned());
    assert_eq!(example::<Thing>().unwrap_err(), unknown);
}
