//! What is allocated, by the rules and in the words of upstream.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::plugins::dynamic_resources::claims::results;

const DRIVER: &str = "gpu.example.com";

/// A class `gpu` of all devices of the driver, and these slices.
fn world(slices: Value) -> Devices {
    let mut devices = Devices::default();
    let gpu = json!({"selectors": [{"cel": {"expression": format!("device.driver == '{DRIVER}'")}}]});
    add_class(&mut devices, "gpu", gpu);
    for (at, spec) in slices.as_array().unwrap().iter().enumerate() {
        let name = spec["name"].as_str().map_or_else(|| format!("slice-{at}"), str::to_owned);
        let mut spec = spec.clone();
        let mut whole = json!({
            "driver": DRIVER, "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1},
        });
        whole.as_object_mut().unwrap().append(spec.as_object_mut().unwrap());
        if ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"].iter().all(|way| whole.get(way).is_none())
        {
            whole["nodeName"] = "a".into();
        }
        let slice = json!({"metadata": {"name": name}, "spec": whole});
        devices.slices.insert(name, Arc::new(serde_json::from_value(slice).unwrap()));
    }
    devices
}

fn add_class(devices: &mut Devices, name: &str, spec: Value) {
    let class = json!({"metadata": {"name": name}, "spec": spec});
    devices.classes.insert(name.to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
}

fn pool(name: &str, generation: i64, slices: i64) -> Value {
    json!({"name": name, "generation": generation, "resourceSliceCount": slices})
}

fn claim(devices: Value) -> ResourceClaim {
    let claim = json!({"metadata": {"name": "claim", "namespace": "x", "uid": "c"}, "spec": {"devices": devices}});
    serde_json::from_value(claim).unwrap()
}

/// A claim with one request of the class `gpu`.
fn one(more: Value) -> ResourceClaim {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    exactly.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claim(json!({"requests": [{"name": "r", "exactly": exactly}]}))
}

/// A request for one device, chosen by an expression.
fn request(name: &str, expression: &str) -> Value {
    json!({"name": name, "exactly": {"deviceClassName": "gpu", "selectors": [{"cel": {"expression": expression}}]}})
}

fn node(name: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"zone": format!("zone-{name}")}}})).unwrap()
}

fn allocate_all(devices: &Devices, claims: &[ResourceClaim], on: &str) -> Result<Vec<AllocationResult>, String> {
    let claims: Vec<_> = claims.iter().collect();
    Allocator::new(devices, &claims, ALLOCATION_STEPS).allocate(&node(on)).map_err(|none| none.message())
}

fn allocate(devices: &Devices, claim: &ResourceClaim, on: &str) -> Result<AllocationResult, String> {
    allocate_all(devices, std::slice::from_ref(claim), on).map(|mut all| all.swap_remove(0))
}

/// The devices that a claim gets on node `a`, as `request=pool/device`.
fn given(devices: &Devices, claim: &ResourceClaim) -> Result<Vec<String>, String> {
    allocate(devices, claim, "a").map(|allocation| shown(&allocation))
}

fn shown(allocation: &AllocationResult) -> Vec<String> {
    let results = results(allocation).iter();
    results.map(|result| format!("{}={}/{}", result.request, result.pool, result.device)).collect()
}

/// Another claim has these devices.
fn take(devices: &mut Devices, results: Value) {
    let number = devices.claims().count();
    let mut results = results;
    for result in results.as_array_mut().unwrap() {
        let mut whole = json!({"request": "r", "driver": DRIVER, "pool": "pool"});
        whole.as_object_mut().unwrap().append(result.as_object_mut().unwrap());
        *result = whole;
    }
    let claim = json!({
        "metadata": {"name": format!("taken-{number}"), "namespace": "x", "uid": format!("taken-{number}")},
        "spec": {"devices": {}}, "status": {"allocation": {"devices": {"results": results}}},
    });
    let claim: ResourceClaim = serde_json::from_value(claim).unwrap();
    devices.set_claim(orchestrator_core::object::ObjectKey::of(&claim.metadata), Some(Arc::new(claim)));
}

const TOO_FEW: &str = "cannot allocate all claims";

fn too_few<T>() -> Result<T, String> {
    Err(TOO_FEW.to_owned())
}

#[test]
fn a_claim_gets_as_many_free_devices_as_it_wants() {
    let mut devices = world(json!([{"devices": [{"name": "0"}, {"name": "1"}, {"name": "2"}]}]));
    assert_eq!(given(&devices, &one(json!({"count": 2}))).unwrap(), ["r=pool/0", "r=pool/1"]);
    take(&mut devices, json!([{"device": "0"}]));
    assert_eq!(given(&devices, &one(json!({"count": 2}))).unwrap(), ["r=pool/1", "r=pool/2"]);
    assert_eq!(given(&devices, &one(json!({"count": 3}))), too_few());
    let two = [one(json!({})), one(json!({}))];
    let both = allocate_all(&devices, &two, "a").unwrap();
    assert_eq!(both.iter().flat_map(shown).collect::<Vec<_>>(), ["r=pool/1", "r=pool/2"]);
    assert_eq!(allocate(&devices, &one(json!({})), "b"), too_few());
}

#[test]
fn pools_are_taken_in_their_order_and_those_that_need_preparation_last() {
    let prepared = json!({"name": "0", "bindingConditions": ["Ready"], "bindingFailureConditions": ["Failed"]});
    let devices = world(json!([
        {"pool": pool("a", 1, 1), "devices": [prepared]},
        {"pool": pool("c", 1, 1), "devices": [{"name": "0"}]},
        {"pool": pool("b", 1, 2), "devices": [{"name": "1"}], "name": "z"},
        {"pool": pool("b", 1, 2), "devices": [{"name": "0"}], "name": "y"},
    ]));
    assert_eq!(given(&devices, &one(json!({"count": 4}))).unwrap(), ["r=b/0", "r=b/1", "r=c/0", "r=a/0"]);
    let all = allocate(&devices, &one(json!({"count": 4})), "a").unwrap();
    let last = &results(&all)[3];
    assert_eq!(last.binding_conditions.as_deref(), Some(&["Ready".to_owned()][..]));
    assert_eq!(last.binding_failure_conditions.as_deref(), Some(&["Failed".to_owned()][..]));
}

#[test]
fn only_the_newest_generation_counts_and_only_when_it_is_whole() {
    let newest = world(json!([
        {"pool": pool("pool", 1, 1), "devices": [{"name": "old"}]},
        {"pool": pool("pool", 2, 1), "devices": [{"name": "new"}]},
    ]));
    assert_eq!(given(&newest, &one(json!({}))).unwrap(), ["r=pool/new"]);
    let elsewhere = world(json!([
        {"pool": pool("pool", 1, 2), "devices": [{"name": "old"}]},
        {"pool": pool("pool", 2, 2), "devices": [{"name": "new"}], "nodeName": "b"},
    ]));
    assert_eq!(given(&elsewhere, &one(json!({}))), too_few());
    let incomplete = world(json!([
        {"pool": pool("pool", 1, 2), "devices": [{"name": "0"}]},
        {"pool": pool("whole", 1, 1), "devices": [{"name": "0"}]},
    ]));
    assert_eq!(given(&incomplete, &one(json!({}))).unwrap(), ["r=whole/0"]);
    assert_eq!(
        given(&incomplete, &one(json!({"allocationMode": "All"}))).unwrap_err(),
        "claim x/claim, request r: asks for all devices, but resource pool gpu.example.com/pool is currently being updated"
    );
    let over_nodes = world(json!([
        {"pool": pool("pool", 1, 2), "devices": [{"name": "0"}]},
        {"pool": pool("pool", 1, 2), "devices": [{"name": "1"}], "nodeName": "b"},
    ]));
    assert_eq!(given(&over_nodes, &one(json!({"allocationMode": "All"}))).unwrap(), ["r=pool/0"]);
    let invalid = world(json!([{"devices": [{"name": "0"}, {"name": "0"}]}]));
    assert_eq!(given(&invalid, &one(json!({}))).unwrap_err(), "invalid resource pools were encountered");
    assert_eq!(
        given(&invalid, &one(json!({"allocationMode": "All"}))).unwrap_err(),
        "claim x/claim, request r: asks for all devices, but resource pool gpu.example.com/pool is currently invalid"
    );
}

#[test]
fn selectors_of_the_class_and_of_the_request_select() {
    let devices = world(json!([
        {"driver": "other.example.com", "pool": pool("a", 1, 1), "devices": [{"name": "0"}]},
        {"devices": [{"name": "0", "attributes": {"cores": {"int": 8}}}, {"name": "1", "attributes": {"cores": {"int": 80}}}]},
    ]));
    let with = |expression: &str| one(json!({"selectors": [{"cel": {"expression": expression}}]}));
    let cores = format!("device.attributes['{DRIVER}'].cores > 10");
    assert_eq!(given(&devices, &with(&cores)).unwrap(), ["r=pool/1"]);
    assert_eq!(given(&devices, &with("false")), too_few());
    assert_eq!(
        given(&devices, &with(&cores.replace("cores", "speed"))).unwrap_err(),
        "claim x/claim: selector #0 on device gpu.example.com/pool/0: CEL runtime error: no such key: speed. Consider using \
         CEL optional chaining (?), has() macro, or orValue() for optional fields"
    );
    assert_eq!(
        given(&devices, &with("nothing")).unwrap_err(),
        "claim x/claim: selector #0: CEL compile error: compilation failed: ERROR: <input>:1:1: undeclared reference to \
         'nothing' (in container '')\n | nothing\n | ^"
    );
    let mut broken = devices;
    add_class(
        &mut broken,
        "gpu",
        json!({"selectors": [{"cel": {"expression": "true"}}, {"cel": {"expression": "1"}}]}),
    );
    assert_eq!(
        given(&broken, &one(json!({}))).unwrap_err(),
        "class gpu: selector #1: CEL compile error: must evaluate to bool or the unknown type, not int"
    );
    assert_eq!(
        given(&broken, &one(json!({"deviceClassName": "none"}))).unwrap_err(),
        "claim x/claim, request r: could not retrieve device class none: deviceclass.resource.k8s.io \"none\" not found"
    );
    assert_eq!(
        given(&broken, &one(json!({"selectors": [{}]}))).unwrap_err(),
        "claim x/claim, request r, selector #0: CEL expression empty (unsupported selector type?)"
    );
    assert_eq!(
        given(&broken, &one(json!({"allocationMode": "Some"}))).unwrap_err(),
        "claim x/claim, request r: unsupported count mode Some"
    );
}

#[test]
fn all_means_all_and_at_least_one() {
    let mut devices = world(json!([{"devices": [{"name": "0"}, {"name": "1"}]}]));
    let all = one(json!({"allocationMode": "All"}));
    assert_eq!(given(&devices, &all).unwrap(), ["r=pool/0", "r=pool/1"]);
    assert_eq!(allocate(&devices, &all, "b"), too_few());
    take(&mut devices, json!([{"device": "1"}]));
    assert_eq!(given(&devices, &all), too_few());
    let many: Vec<_> = (0..33).map(|number| json!({"name": number.to_string()})).collect();
    let many = world(json!([{ "devices": many }]));
    let limit =
        |count: usize| format!("claim x/claim: number of requested devices {count} exceeds the claim limit of 32");
    assert_eq!(given(&many, &all).unwrap_err(), limit(33));
    assert_eq!(given(&many, &one(json!({"count": 40}))).unwrap_err(), limit(40));
    assert_eq!(given(&many, &one(json!({"count": 32}))).unwrap().len(), 32);
    let constrained = claim(json!({
        "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}],
        "constraints": [{"matchAttribute": "gpu.example.com/rack"}],
    }));
    assert_eq!(
        given(&world(json!([{"devices": [{"name": "0"}]}])), &constrained).unwrap_err(),
        "claim x/claim, request r: cannot add device gpu.example.com/pool/0 because a claim constraint would not be satisfied"
    );
}

#[test]
fn the_first_alternative_that_can_be_had_is() {
    let devices = world(json!([{"devices": [
        {"name": "small", "attributes": {"size": {"string": "small"}}},
        {"name": "small-2", "attributes": {"size": {"string": "small"}}},
    ]}]));
    let sized = |name: &str, size: &str, count: i64| {
        let expression = format!("device.attributes['{DRIVER}'].size == '{size}'");
        json!({"name": name, "deviceClassName": "gpu", "count": count, "selectors": [{"cel": {"expression": expression}}]})
    };
    let choices = |choices: Value| claim(json!({"requests": [{"name": "r", "firstAvailable": choices}]}));
    let either = choices(json!([sized("big", "large", 1), sized("little", "small", 2)]));
    assert_eq!(given(&devices, &either).unwrap(), ["r/little=pool/small", "r/little=pool/small-2"]);
    assert_eq!(given(&devices, &choices(json!([sized("big", "large", 1)]))), too_few());
    // What is too much for one claim leaves room for another choice.
    let fewer = choices(json!([sized("many", "small", 40), sized("few", "small", 1)]));
    assert_eq!(given(&devices, &fewer).unwrap(), ["r/few=pool/small"]);
}

#[test]
fn constraints_hold_across_requests_and_the_search_goes_back() {
    let device = |name: &str, model: &str, rack: &str| json!({"name": name, "attributes": {"model": {"string": model}, "other.example.com/rack": {"string": rack}}});
    let devices = world(json!([{"devices": [
        device("a0", "a", "1"), device("a1", "a", "2"), device("b0", "b", "2"), device("b1", "b", "2"), {"name": "odd"},
    ]}]));
    let model = |name: &str| {
        format!("has(device.attributes['{DRIVER}'].model) && device.attributes['{DRIVER}'].model == '{name}'")
    };
    let with = |constraint: Value| {
        claim(json!({"requests": [request("x", &model("a")), request("y", &model("b"))], "constraints": [constraint]}))
    };
    let same = with(json!({"matchAttribute": "other.example.com/rack"}));
    assert_eq!(given(&devices, &same).unwrap(), ["x=pool/a1", "y=pool/b0"]);
    let of_x = with(json!({"matchAttribute": "other.example.com/rack", "requests": ["x"]}));
    assert_eq!(given(&devices, &of_x).unwrap(), ["x=pool/a0", "y=pool/b0"]);
    let distinct = with(json!({"distinctAttribute": "other.example.com/rack"}));
    assert_eq!(given(&devices, &distinct).unwrap(), ["x=pool/a0", "y=pool/b0"]);
    assert_eq!(given(&devices, &with(json!({"matchAttribute": "gpu.example.com/model"}))), too_few());
    assert_eq!(given(&devices, &with(json!({"distinctAttribute": "gpu.example.com/none"}))), too_few());
    assert_eq!(
        given(&devices, &with(json!({}))).unwrap_err(),
        "claim x/claim, constraint #0: empty constraint (unsupported constraint type?)"
    );
}

#[test]
fn administrators_look_at_devices_that_others_have() {
    let mut devices = world(json!([{"devices": [{"name": "0"}, {"name": "1"}]}]));
    take(&mut devices, json!([{"device": "0"}]));
    let admin = one(json!({"adminAccess": true, "count": 2}));
    let allocation = allocate(&devices, &admin, "a").unwrap();
    assert_eq!(shown(&allocation), ["r=pool/0", "r=pool/1"]);
    assert_eq!(results(&allocation)[0].admin_access, Some(true));
    take(&mut devices, json!([{"device": "1", "adminAccess": true}]));
    assert_eq!(given(&devices, &one(json!({}))).unwrap(), ["r=pool/1"]);
    let twice = json!({"deviceClassName": "gpu", "adminAccess": true, "count": 2});
    let twice = claim(json!({"requests": [{"name": "x", "exactly": twice}, {"name": "y", "exactly": twice}]}));
    assert_eq!(given(&devices, &twice), too_few());
}

#[test]
fn taints_keep_off_whoever_does_not_tolerate_them() {
    let tainted =
        |effect: &str| json!([{"devices": [{"name": "0", "taints": [{"key": "k", "value": "v", "effect": effect}]}]}]);
    let tolerating = |toleration: Value| one(json!({"tolerations": [toleration]}));
    for effect in ["NoSchedule", "NoExecute"] {
        let devices = world(tainted(effect));
        assert_eq!(given(&devices, &one(json!({}))), too_few(), "{effect}");
        for right in [
            json!({"key": "k", "operator": "Equal", "value": "v"}),
            json!({"key": "k", "operator": "Exists"}),
            json!({"operator": "Exists", "effect": effect}),
        ] {
            let allocation = allocate(&devices, &tolerating(right.clone()), "a").unwrap();
            assert_eq!(serde_json::to_value(&results(&allocation)[0].tolerations).unwrap(), json!([right]));
        }
        for wrong in [
            json!({"key": "k", "operator": "Equal", "value": "w"}),
            json!({"key": "j", "operator": "Exists"}),
            json!({"key": "k", "operator": "Exists", "effect": "None"}),
            json!({"key": "k", "operator": "Unknown", "value": "v"}),
        ] {
            assert_eq!(given(&devices, &tolerating(wrong.clone())), too_few(), "{wrong}");
        }
    }
    assert!(given(&world(tainted("None")), &one(json!({}))).is_ok());
}

#[test]
fn partitions_share_the_counters_of_their_pool() {
    let partition = |name: &str, memory: &str| {
        let consumes = json!([{"counterSet": "gpu-0", "counters": {"memory": {"value": memory}}}]);
        json!({"name": name, "consumesCounters": consumes})
    };
    let slices = |sets: Value| {
        json!([
            {"pool": pool("pool", 1, 2), "sharedCounters": sets},
            {"pool": pool("pool", 1, 2), "devices": [partition("half-0", "20Gi"), partition("half-1", "20Gi"), partition("whole", "40Gi")]},
        ])
    };
    let set = json!({"name": "gpu-0", "counters": {"memory": {"value": "40Gi"}}});
    let mut devices = world(slices(json!([set])));
    assert_eq!(given(&devices, &one(json!({"count": 2}))).unwrap(), ["r=pool/half-0", "r=pool/half-1"]);
    assert_eq!(given(&devices, &one(json!({"count": 3}))), too_few());
    let whole_and_half = claim(json!({"requests": [
        {"name": "x", "exactly": {"deviceClassName": "gpu"}}, {"name": "y", "exactly": {"deviceClassName": "gpu"}},
        {"name": "z", "exactly": {"deviceClassName": "gpu"}},
    ]}));
    assert_eq!(given(&devices, &whole_and_half), too_few());
    take(&mut devices, json!([{"device": "half-1"}]));
    assert_eq!(given(&devices, &one(json!({}))).unwrap(), ["r=pool/half-0"]);
    assert_eq!(given(&devices, &one(json!({"count": 2}))), too_few());
    take(&mut devices, json!([{"device": "half-0"}]));
    assert_eq!(given(&devices, &one(json!({}))), too_few());
    let unknown = world(slices(json!([{"name": "gpu-1", "counters": {"memory": {"value": "40Gi"}}}])));
    assert_eq!(given(&unknown, &one(json!({}))).unwrap_err(), "invalid resource pools were encountered");
    let twice = world(slices(json!([set, set])));
    assert_eq!(given(&twice, &one(json!({}))).unwrap_err(), "invalid resource pools were encountered");
}

#[test]
fn devices_can_be_had_in_parts_by_their_rules() {
    let with = |policy: Value| {
        world(json!([{"devices": [{"name": "0", "allowMultipleAllocations": true, "capacity": {
            "memory": {"value": "10Gi", "requestPolicy": policy},
        }}]}]))
    };
    let wanting = |memory: &str| one(json!({"capacity": {"requests": {"memory": memory}}}));
    let consumed = |devices: &Devices, claim: &ResourceClaim| {
        let allocation = allocate(devices, claim, "a")?;
        let result = &results(&allocation)[0];
        assert!(result.share_id.is_some());
        Ok::<_, String>(result.consumed_capacity.as_ref().unwrap()["memory"].0.clone())
    };
    let range = with(json!({"default": "1Gi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "2Gi"}}));
    assert_eq!(consumed(&range, &wanting("512Mi")).unwrap(), "1Gi");
    assert_eq!(consumed(&range, &wanting("4Gi")).unwrap(), "5Gi");
    assert_eq!(consumed(&range, &one(json!({}))).unwrap(), "1Gi");
    assert_eq!(consumed(&range, &wanting("8Gi")), too_few());
    let values = with(json!({"default": "2Gi", "validValues": ["2Gi", "6Gi"]}));
    assert_eq!(consumed(&values, &wanting("3Gi")).unwrap(), "6Gi");
    assert_eq!(consumed(&values, &wanting("7Gi")), too_few());
    let mut free = with(json!(null));
    assert_eq!(consumed(&free, &one(json!({}))).unwrap(), "10Gi");
    assert_eq!(consumed(&free, &wanting("11Gi")), too_few());
    take(&mut free, json!([{"device": "0", "shareID": "s", "consumedCapacity": {"memory": "6Gi"}}]));
    assert_eq!(consumed(&free, &wanting("4Gi")).unwrap(), "4Gi");
    assert_eq!(consumed(&free, &wanting("5Gi")), too_few());
    let halves = [wanting("2Gi"), wanting("2Gi")];
    assert_eq!(allocate_all(&free, &halves, "a").unwrap().len(), 2);
    assert!(allocate_all(&free, &[wanting("2Gi"), wanting("3Gi")], "a").is_err());
    assert_eq!(
        consumed(&free, &one(json!({"capacity": {"requests": {"gpu.example.com/memory": "1Gi"}}}))).unwrap(),
        "1Gi"
    );
    assert_eq!(given(&free, &one(json!({"capacity": {"requests": {"cores": "1"}}}))), too_few());
    // Devices that are had as a whole are large enough, or not.
    let whole = world(json!([{"devices": [{"name": "0", "capacity": {"memory": {"value": "10Gi"}}}]}]));
    let allocation = allocate(&whole, &wanting("4Gi"), "a").unwrap();
    assert_eq!((&results(&allocation)[0].consumed_capacity, &results(&allocation)[0].share_id), (&None, &None));
    assert_eq!(given(&whole, &wanting("11Gi")), too_few());
}

#[test]
fn an_allocation_says_where_its_devices_can_be_used() {
    let selector =
        |allocation: Result<AllocationResult, String>| serde_json::to_value(allocation.unwrap().node_selector).unwrap();
    let in_zone =
        json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["zone-a"]}]}]});
    let on_a =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]});
    let local = world(json!([{"devices": [{"name": "0"}]}]));
    assert_eq!(selector(allocate(&local, &one(json!({})), "a")), on_a);
    let zone = world(json!([{"nodeSelector": in_zone, "devices": [{"name": "0"}, {"name": "1"}]}]));
    assert_eq!(selector(allocate(&zone, &one(json!({"count": 2})), "a")), in_zone);
    assert_eq!(allocate(&zone, &one(json!({})), "b"), too_few());
    let everywhere = world(json!([{"allNodes": true, "devices": [{"name": "0"}]}]));
    assert_eq!(selector(allocate(&everywhere, &one(json!({})), "b")), Value::Null);
    let bound = world(json!([{"allNodes": true, "devices": [{"name": "0", "bindsToNode": true}]}]));
    assert_eq!(selector(allocate(&bound, &one(json!({})), "a")), on_a);
    let each = world(json!([{"perDeviceNodeSelection": true, "devices": [
        {"name": "0", "nodeName": "b"}, {"name": "1", "nodeSelector": in_zone}, {"name": "2", "allNodes": true},
    ]}]));
    assert_eq!(given(&each, &one(json!({"count": 2}))).unwrap(), ["r=pool/1", "r=pool/2"]);
    assert_eq!(selector(allocate(&each, &one(json!({"count": 2})), "a")), in_zone);
    assert_eq!(shown(&allocate(&each, &one(json!({"allocationMode": "All"})), "b").unwrap()), ["r=pool/0", "r=pool/2"]);
}

#[test]
fn configurations_of_classes_come_before_those_of_the_claim() {
    let opaque = |value: &str| json!({"opaque": {"driver": DRIVER, "parameters": {"is": value}}});
    let mut devices = world(json!([{"devices": [{"name": "0"}, {"name": "1"}, {"name": "2"}]}]));
    add_class(&mut devices, "other", json!({"config": [opaque("other")]}));
    add_class(&mut devices, "gpu", json!({"config": [opaque("first"), opaque("second")]}));
    let of_request = |request: &str, value: &str| {
        let mut config = opaque(value);
        config["requests"] = json!([request]);
        config
    };
    let claim = claim(json!({
        "requests": [
            {"name": "x", "exactly": {"deviceClassName": "gpu"}},
            {"name": "y", "exactly": {"deviceClassName": "gpu"}},
            {"name": "z", "firstAvailable": [
                {"name": "all", "deviceClassName": "gpu", "count": 9}, {"name": "one", "deviceClassName": "other"},
            ]},
        ],
        "config": [
            opaque("everywhere"), of_request("z", "for z"), of_request("z/one", "for one"), of_request("z/all", "for all"),
        ],
    }));
    let allocation = allocate(&devices, &claim, "a").unwrap();
    let config = allocation.devices.unwrap().config.unwrap();
    let shown: Vec<_> = config
        .iter()
        .map(|config| {
            let parameters = &config.opaque.as_ref().unwrap().parameters.0["is"];
            (
                config.source.as_str(),
                parameters.as_str().unwrap(),
                config.requests.clone().unwrap_or_default().join(","),
            )
        })
        .collect();
    let expected = [
        ("FromClass", "first", "x,y"),
        ("FromClass", "second", "x,y"),
        ("FromClass", "other", "z/one"),
        ("FromClaim", "everywhere", ""),
        ("FromClaim", "for z", "z"),
        ("FromClaim", "for one", "z/one"),
    ];
    assert_eq!(shown, expected.map(|(source, value, requests)| (source, value, requests.to_owned())));
}

#[test]
fn no_claim_can_hold_the_scheduler_up() {
    let devices: Vec<_> =
        (0..60).map(|at| json!({"name": at.to_string(), "attributes": {"n": {"int": at % 30}}})).collect();
    let devices = world(json!([{ "devices": devices }]));
    let hopeless = claim(json!({
        "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "count": 31}}],
        "constraints": [{"distinctAttribute": "gpu.example.com/n"}],
    }));
    let claims = [&hopeless];
    let allocator = Allocator::new(&devices, &claims, ALLOCATION_STEPS);
    allocator.steps.set(100_000);
    assert_eq!(allocator.allocate(&node("a")), Err(NoAllocation::Spent));
    assert_eq!(allocator.allocate(&node("b")).unwrap_err().message(), "timed out trying to allocate devices");
}

#[test]
fn a_node_that_costs_too_much_leaves_something_for_others() {
    let own = |name: &str, count: usize| {
        let devices: Vec<_> = (0..count).map(|at| json!({ "name": at.to_string() })).collect();
        json!({"nodeName": name, "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}, "devices": devices})
    };
    let devices = world(json!([own("a", 100), own("b", 2)]));
    let claim = claim(json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}));
    let claims = [&claim];
    let allocator = Allocator::new(&devices, &claims, 50);
    assert_eq!(allocator.allocate(&node("a")), Err(NoAllocation::Spent));
    assert_eq!(allocator.allocate(&node("b")).map(|allocations| allocations.len()), Ok(1));
    allocator.steps.set(30);
    assert!(allocator.allocate(&node("b")).is_ok(), "what is left is enough");
    assert!((0..9).any(|_| allocator.allocate(&node("b")) == Err(NoAllocation::Spent)), "in the end nothing is left");
}

#[test]
fn reading_expressions_costs_what_they_are_long() {
    let devices = world(json!([{"devices": [{"name": "0"}]}]));
    let selectors: Vec<_> =
        (0..3).map(|at| json!({"cel": {"expression": format!("true{}|| {at} == 1", " ".repeat(900))}})).collect();
    let claim =
        claim(json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "selectors": selectors}}]}));
    let mut steps = 5000;
    assert!(requests::read(&[&claim, &claim], &devices, &mut steps).is_ok());
    assert!((1500..2300).contains(&steps), "each was read once: {steps} are left");
    let mut steps = 1000;
    assert_eq!(requests::read(&[&claim], &devices, &mut steps).err(), Some(NoAllocation::Spent));
}
