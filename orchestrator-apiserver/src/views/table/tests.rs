//! Tables against recorded ones, and the states of pods and others that records do not have.

use orchestrator_core::client::Resource;

use super::*;
use crate::registry::{Registry, custom_kinds};

/// Objects with their recorded tables. A column of four members has the description of a name or a creation time.
const RECORDED: &str = include_str!("../fixtures/tables.json");

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn kind(group: &str, version: &str, plural: &str) -> std::sync::Arc<Kind> {
    let resource = Resource::new(group.to_owned(), version.to_owned(), plural.to_owned());
    Registry::new().find(&resource).unwrap()
}

fn cells(group: &str, version: &str, plural: &str, object: &Value) -> Value {
    single(&kind(group, version, plural), object, now(), TableOptions::default())["rows"][0]["cells"].clone()
}

#[test]
fn tables_are_those_recorded() {
    // The recorded times are replaced by this one, which makes every age five minutes.
    let recorded = RECORDED.replace("<time>", "2026-03-01T11:55:00Z");
    let cases: Vec<Value> = serde_json::from_str(&recorded).unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let [group, version, plural] = [0, 1, 2].map(|index| case["resource"][index].as_str().unwrap());
        let table = single(&kind(group, version, plural), &case["object"], now(), TableOptions::default());
        for (got, want) in
            table["columnDefinitions"].as_array().unwrap().iter().zip(case["columns"].as_array().unwrap())
        {
            for (index, member) in ["name", "type", "format", "priority", "description"].iter().enumerate() {
                let want = want.get(index).unwrap_or(&got[member]);
                assert_eq!(&got[member], want, "{plural}: {member} of {}", got["name"]);
            }
        }
        let columns = case["columns"].as_array().unwrap().len();
        assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), columns, "{plural}");
        let got = table["rows"][0]["cells"].to_string();
        let got = got.replace("\"5m\"", "\"<age>\"").replace("\"2026-03-01T11:55:00Z\"", "\"<age>\"");
        assert_eq!(got, case["cells"].to_string(), "{plural}");
    }
}

#[test]
fn no_object_is_too_odd() {
    let odd = [
        json!({}),
        json!(null),
        json!({"metadata": 1, "spec": "x", "status": [null], "data": null}),
        json!({"metadata": {"name": 1, "labels": [], "creationTimestamp": "soon"}, "spec": {"ports": {}, "rules": [1]}}),
        json!({"spec": {"metrics": [{"type": "Pods"}], "expirationSeconds": -5}, "subsets": [{}], "endpoints": [null]}),
        json!({"status": {"initContainerStatuses": [{}], "containerStatuses": [null], "conditions": [1]}}),
    ];
    let odd: Vec<&Value> = odd.iter().collect();
    for kind in Registry::new().kinds() {
        let table = table(&kind, &odd, now(), TableOptions::default(), &json!({}));
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        // Addresses have one cell too many upstream.
        let cells = columns + usize::from(kind.is("networking.k8s.io", "ipaddresses"));
        for row in table["rows"].as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), cells, "{}", kind.kind);
        }
    }
}

#[test]
fn rows_carry_as_much_of_the_object_as_asked() {
    let object = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "data": {"k": "v"}});
    let kind = kind("", "v1", "configmaps");
    let row = |include_object| {
        let options = TableOptions { include_object, headers: false, ..TableOptions::default() };
        let table = single(&kind, &object, now(), options);
        assert_eq!(table["columnDefinitions"], Value::Null);
        assert_eq!(table["metadata"], json!({"resourceVersion": "7"}));
        assert_eq!(table["rows"][0]["cells"], json!(["a", 1, "<unknown>"]));
        table["rows"][0]["object"].clone()
    };
    assert_eq!(row(IncludeObject::None), Value::Null);
    assert_eq!(row(IncludeObject::Object), object);
    assert_eq!(row(IncludeObject::Metadata)["kind"], "PartialObjectMetadata");
}

fn pod(spec: &Value, status: &Value) -> Value {
    json!({"metadata": {"name": "p", "creationTimestamp": "2026-03-01T11:00:00Z"}, "spec": spec, "status": status})
}

/// Ready, status and restarts of a pod.
fn pod_cells(spec: &Value, status: &Value) -> [String; 3] {
    let cells = cells("", "v1", "pods", &pod(spec, status));
    [1, 2, 3].map(|index| cells[index].as_str().unwrap().to_owned())
}

#[test]
fn pods_show_their_most_telling_state() {
    let one = json!({"containers": [{"name": "c"}]});
    let init = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let sidecar = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]});
    let running = json!({"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let of = |state: Value| json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": state}]});
    let init_of = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
    let cases = [
        (&one, json!({"phase": "Pending"}), ["0/1", "Pending", "0"]),
        (
            &one,
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            ["0/1", "SchedulingGated", "0"],
        ),
        (&one, of(json!({"waiting": {"reason": "ContainerCreating"}})), ["0/1", "ContainerCreating", "0"]),
        (&one, of(json!({"terminated": {"exitCode": 3}})), ["0/1", "ExitCode:3", "0"]),
        (&one, of(json!({"terminated": {"exitCode": 137, "signal": 9}})), ["0/1", "Signal:9", "0"]),
        (&one, json!({"phase": "Running", "containerStatuses": [running]}), ["1/1", "Running", "0"]),
        (&one, json!({"phase": "Failed", "reason": "Evicted"}), ["0/1", "Evicted", "0"]),
        (&init, init_of(json!({"running": {}})), ["0/1", "Init:0/2", "0"]),
        (&init, init_of(json!({"waiting": {"reason": "PodInitializing"}})), ["0/1", "Init:0/2", "0"]),
        (&init, init_of(json!({"waiting": {"reason": "ImagePullBackOff"}})), ["0/1", "Init:ImagePullBackOff", "0"]),
        (&init, init_of(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), ["0/1", "Init:Error", "0"]),
        (&init, init_of(json!({"terminated": {"exitCode": 2}})), ["0/1", "Init:ExitCode:2", "0"]),
        (
            &sidecar,
            json!({
                "phase": "Running",
                "initContainerStatuses": [{"name": "i", "ready": true, "started": true, "restartCount": 2}],
                "containerStatuses": [running],
            }),
            ["2/2", "Running", "2"],
        ),
        (
            &one,
            json!({"phase": "Running", "containerStatuses": [{
                "name": "c",
                "restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2026-03-01T11:55:00Z"}},
            }]}),
            ["0/1", "CrashLoopBackOff", "4 (5m ago)"],
        ),
    ];
    for (spec, status, want) in cases {
        assert_eq!(pod_cells(spec, &status), want, "{status}");
    }
}

#[test]
fn a_pod_with_one_container_done_and_one_running_is_as_ready_as_its_condition() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let status = |ready: &str| {
        json!({
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                {"name": "b", "ready": true, "state": {"running": {}}},
            ],
        })
    };
    assert_eq!(pod_cells(&spec, &status("True"))[1], "Running");
    assert_eq!(pod_cells(&spec, &status("False"))[1], "NotReady");
}

#[test]
fn pods_that_go_away_say_so_and_pods_that_are_over_are_marked() {
    let mut pod = pod(&json!({"containers": [{}]}), &json!({"phase": "Running"}));
    pod["metadata"]["deletionTimestamp"] = json!("2026-03-01T11:59:00Z");
    assert_eq!(cells("", "v1", "pods", &pod)[2], "Terminating");
    pod["status"]["reason"] = json!("NodeLost");
    assert_eq!(cells("", "v1", "pods", &pod)[2], "Unknown");
    pod["status"] = json!({"phase": "Succeeded"});
    assert_eq!(cells("", "v1", "pods", &pod)[2], "Succeeded");
    let table = single(&kind("", "v1", "pods"), &pod, now(), TableOptions::default());
    assert_eq!(table["rows"][0]["conditions"][0]["reason"], "Succeeded");
}

#[test]
fn nodes_services_and_autoscalers() {
    let node = json!({
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "db"}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.2"},
        },
    });
    let want = ["n", "NotReady,SchedulingDisabled", "db,worker", "<unknown>", "v1.36.2", "10.0.0.1", "<none>"];
    assert_eq!(cells("", "v1", "nodes", &node).as_array().unwrap()[..7], want);

    let service = json!({
        "metadata": {"name": "s"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIPs": ["10.0.0.7"],
            "ports": [{"port": 80, "nodePort": 30008, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
        },
    });
    let want = json!(["s", "LoadBalancer", "10.0.0.7", "<pending>", "80:30008/TCP,53/UDP", "<unknown>", "<none>"]);
    assert_eq!(cells("", "v1", "services", &service), want);

    let autoscaler = json!({
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "maxReplicas": 5,
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
                {"type": "Pods", "pods": {"target": {"averageValue": "10"}}},
                {"type": "External", "external": {"target": {"value": "3"}}},
            ],
        },
        "status": {"currentMetrics": [{"resource": {"current": {"averageUtilization": 20}}}], "currentReplicas": 2},
    });
    let targets = "cpu: 20%/80%, <unknown>/10 + 1 more...";
    let want = json!(["h", "Deployment/web", targets, "<unset>", 5, 2, "<unknown>"]);
    assert_eq!(cells("autoscaling", "v2", "horizontalpodautoscalers", &autoscaler), want);
}

#[test]
fn jobs_show_how_far_they_are() {
    let job = |conditions: Value| {
        json!({
            "metadata": {"name": "j"},
            "spec": {"completions": 3, "selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
            "status": {
                "succeeded": 1,
                "startTime": "2026-03-01T11:50:00Z",
                "conditions": conditions,
            },
        })
    };
    let want = json!(["j", "Running", "1/3", "10m", "<unknown>", "", "", "a"]);
    assert_eq!(cells("batch", "v1", "jobs", &job(json!([]))), want);
    let failed = job(json!([{"type": "Failed", "status": "True"}]));
    assert_eq!(cells("batch", "v1", "jobs", &failed)[1], "Failed");
}

#[test]
fn custom_kinds_have_the_columns_of_their_definition() {
    let definition = |columns: Value| {
        json!({"spec": {
            "group": "example.com",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "additionalPrinterColumns": columns}],
        }})
    };
    let object = json!({
        "metadata": {"name": "w", "creationTimestamp": "2026-03-01T11:00:00Z"},
        "spec": {"size": 2, "tags": ["a"]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    let table = |columns: Value| {
        let kinds = custom_kinds(&definition(columns));
        single(&kinds[0], &object, now(), TableOptions::default())
    };
    assert_eq!(table(Value::Null)["rows"][0]["cells"], json!(["w", "60m"]));
    let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
    let columns = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big."},
        {"name": "Ready", "type": "string", "jsonPath": ready, "priority": 1},
        {"name": "Tags", "type": "string", "jsonPath": ".spec.tags"},
        {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
        {"name": "Wrong", "type": "boolean", "jsonPath": ".spec.size"},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let table = table(columns);
    assert_eq!(table["rows"][0]["cells"], json!(["w", 2, "True", "[\"a\"]", null, null, "60m"]));
    assert_eq!(table["columnDefinitions"][1]["description"], "How big.");
    let generated = format!("Custom resource definition column (in JSONPath format): {ready}");
    assert_eq!(table["columnDefinitions"][2]["description"], generated);
    assert_eq!(table["columnDefinitions"][2]["priority"], 1);
}

#[test]
fn a_scale_has_columns_of_its_own() {
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "d"},
        "spec": {"replicas": 3},
        "status": {"replicas": 2},
    });
    assert_eq!(cells("apps", "v1", "deployments", &scale), json!(["d", 3, 2, "<unknown>"]));
}

#[test]
fn flow_schemas_come_in_the_order_in_which_they_are_tried() {
    let schema =
        |name: &str, precedence: i64| json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": precedence}});
    let mut schemas = [schema("a", 9000), schema("c", 1), schema("b", 1)].map(Object::from_tree);
    let kind = kind("flowcontrol.apiserver.k8s.io", "v1", "flowschemas");
    sort(&kind, &mut schemas);
    let names = schemas.each_ref().map(|schema| schema.tree().unwrap()["metadata"]["name"].clone());
    assert_eq!(names, ["b", "c", "a"]);
}
