//! Configurations: what they switch on and off, and what is refused where.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::{PodInfo, Scheduler, Snapshot, Verdict};
use orchestrator_scheduler::{
    config::{ConfigReason, Configuration, Parts, Registry},
    framework::{Plugin, PreFilter, Prepared, Profile},
};
use serde_json::json;

const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

fn read(rest: &str) -> Configuration {
    Configuration::from_yaml(&format!("{HEAD}{rest}")).unwrap()
}

/// Where a configuration is refused, and why.
fn refused(rest: &str) -> (String, ConfigReason) {
    let error = Configuration::from_yaml(&format!("{HEAD}{rest}")).unwrap_err();
    (error.path, error.reason)
}

fn filters(profile: &Profile) -> Vec<&'static str> {
    profile.filters.iter().map(|plugin| plugin.name()).collect()
}

fn scores(profile: &Profile) -> Vec<(i64, &'static str)> {
    profile.scores.iter().map(|(weight, plugin)| (*weight, plugin.name())).collect()
}

#[test]
fn nothing_said_is_the_default() {
    let configuration = read("");
    let [profile] = configuration.profiles.as_slice() else { panic!("{configuration:?}") };
    let default = Profile::default();
    assert_eq!(profile.name, "default-scheduler");
    assert_eq!((filters(profile), scores(profile)), (filters(&default), scores(&default)));
    let names = |profile: &Profile| profile.post_filters.iter().map(|plugin| plugin.name()).collect::<Vec<_>>();
    assert_eq!(names(profile), names(&default));
    assert_eq!(profile.pre_enqueue[0].name(), "SchedulingGates");
    assert_eq!((configuration.backoff_start.as_secs(), configuration.backoff_longest.as_secs()), (1, 10));
    let election = configuration.leader_election.unwrap();
    assert_eq!((election.namespace.as_str(), election.name.as_str()), ("kube-system", "kube-scheduler"));
}

#[test]
fn plugins_are_switched_on_and_off() {
    let configuration = read(
        "podMaxBackoffSeconds: 30
leaderElection: {leaderElect: false, leaseDuration: 1m, renewDeadline: 10s}
clientConnection: {kubeconfig: /somewhere}
profiles:
- schedulerName: one
  plugins:
    multiPoint:
      enabled: [{name: TaintToleration, weight: 7}]
      disabled: [{name: ImageLocality}]
    filter:
      disabled: [{name: NodePorts}]
    score:
      enabled: [{name: InterPodAffinity, weight: 50}]
      disabled: [{name: NodeAffinity}, {name: InterPodAffinity}]
- schedulerName: bare
  plugins:
    multiPoint:
      enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeName}]
      disabled: [{name: '*'}]
",
    );
    let [one, bare] = configuration.profiles.as_slice() else { panic!("{configuration:?}") };
    assert!(!filters(one).contains(&"NodePorts") && filters(one).contains(&"NodeAffinity"));
    assert_eq!(
        scores(one),
        [
            (50, "InterPodAffinity"),
            (7, "TaintToleration"),
            (1, "NodeResourcesFit"),
            (2, "PodTopologySpread"),
            (1, "DynamicResources"),
            (1, "NodeResourcesBalancedAllocation"),
        ]
    );
    assert_eq!((filters(bare), scores(bare)), (vec!["NodeName"], vec![]));
    assert!(bare.post_filters.is_empty() && bare.reserve.is_empty());
    assert_eq!(configuration.backoff_longest.as_secs(), 30);
    assert_eq!(configuration.leader_election, None);
    assert_eq!(configuration.kubeconfig.as_deref(), Some("/somewhere"));
}

fn node(name: &str, labels: serde_json::Value) -> Arc<Node> {
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "9", "example.com/dev": "1"}},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(more: serde_json::Value) -> PodInfo {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "x", "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    PodInfo::from(serde_json::from_value::<Pod>(pod).unwrap())
}

fn configured(plugin: &str, args: &str) -> Profile {
    read(&format!("profiles: [{{pluginConfig: [{{name: {plugin}, args: {args}}}]}}]")).profiles.remove(0)
}

/// The node that a profile takes, or its message.
fn verdict(profile: &Profile, pod: &PodInfo, cluster: &Snapshot) -> String {
    match profile.schedule(pod, cluster, 0) {
        Verdict::Node(node) => node,
        Verdict::Unschedulable(why) => why.message(),
        other => format!("{other:?}"),
    }
}

#[test]
fn arguments_are_heeded() {
    let mut cluster = Snapshot::default();
    cluster.set_node(node("a", json!({})));
    cluster.set_node(node("b", json!({"disk": "ssd"})));
    cluster.put_pod(Arc::new(pod(json!({}))), "b");
    let plain = PodInfo::from(Pod { metadata: named("q"), ..pod(json!({})).pod().as_ref().clone() });
    assert_eq!(verdict(&Profile::default(), &plain, &cluster), "a");
    let packing = configured(
        "NodeResourcesFit",
        "{scoringStrategy: {type: RequestedToCapacityRatio, resources: [{name: cpu, weight: 100}], \
         requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}}}",
    );
    assert_eq!(verdict(&packing, &plain, &cluster), "b");
    let ssd = "{requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [\
               {matchExpressions: [{key: disk, operator: In, values: [hdd]}]}]}}";
    let enforced = configured("NodeAffinity", &format!("{{addedAffinity: {ssd}}}"));
    let message = verdict(&enforced, &plain, &cluster);
    assert!(message.contains("2 node(s) didn't match scheduler-enforced node affinity."), "{message}");
    let container = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/dev": "5"}}}]});
    let greedy = pod(container);
    assert!(verdict(&Profile::default(), &greedy, &cluster).contains("2 Insufficient example.com/dev"));
    let ignoring = configured("NodeResourcesFit", "{ignoredResourceGroups: [example.com]}");
    assert_eq!(verdict(&ignoring, &greedy, &cluster), "a");
}

#[test]
fn every_node_is_considered_whatever_share_would_be_enough() {
    let configuration = read("percentageOfNodesToScore: 1\nprofiles: [{percentageOfNodesToScore: 50}]");
    let mut cluster = Snapshot::default();
    for at in 0..200 {
        let disk = if at == 199 { "ssd" } else { "hdd" };
        cluster.set_node(node(&format!("n{at:03}"), json!({ "disk": disk })));
    }
    let wanted = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}},
    ]}}});
    assert_eq!(verdict(&configuration.profiles[0], &pod(wanted), &cluster), "n199");
}

#[test]
fn the_search_for_devices_takes_as_long_as_it_may() {
    let mut cluster = Snapshot::default();
    cluster.set_node(node("a", json!({})));
    let class = json!({"metadata": {"name": "gpu"}, "spec": {}});
    cluster.devices.classes.insert("gpu".to_owned(), Arc::new(serde_json::from_value(class).unwrap()));
    let devices: Vec<_> = (0..128).map(|at| json!({ "name": at.to_string() })).collect();
    let slice = json!({"metadata": {"name": "a"}, "spec": {
        "driver": "d", "nodeName": "a", "devices": devices, "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1},
    }});
    cluster.devices.slices.insert("a".to_owned(), Arc::new(serde_json::from_value(slice).unwrap()));
    let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
    let claim = json!({"metadata": {"name": "c", "namespace": "x"}, "spec": {"devices": {"requests": requests}}});
    let key = orchestrator_core::object::ObjectKey::new("x", "c");
    cluster.devices.set_claim(key, Some(Arc::new(serde_json::from_value(claim).unwrap())));
    let pod = pod(json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}));
    for args in ["{}", "{filterTimeout: 0s, bindingTimeout: 1s}", "{filterTimeout: 1ms}"] {
        assert_eq!(verdict(&configured("DynamicResources", args), &pod, &cluster), "a", "{args}");
    }
    let hurried = verdict(&configured("DynamicResources", "{filterTimeout: 1us}"), &pod, &cluster);
    assert!(hurried.starts_with("0/1 nodes are available: 1 timed out trying to allocate devices."), "{hurried}");
}

fn named(name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("x".to_owned()),
        ..Default::default()
    }
}

#[test]
fn what_is_wrong_is_refused_where_it_stands() {
    let plugin = |args: &str| refused(&format!("profiles: [{{pluginConfig: [{args}]}}]"));
    let unknown = |name: &str| ConfigReason::UnknownPlugin(name.to_owned());
    assert_eq!(refused("nonsense: 1"), ("nonsense".to_owned(), ConfigReason::UnknownField));
    assert_eq!(refused("parallelism: many").1, ConfigReason::Type("a whole number"));
    assert_eq!(refused("podInitialBackoffSeconds: 20").0, "podMaxBackoffSeconds");
    assert_eq!(refused("percentageOfNodesToScore: 101").0, "percentageOfNodesToScore");
    assert_eq!(refused("profiles: [{percentageOfNodesToScore: -1}]").0, "profiles[0].percentageOfNodesToScore");
    assert_eq!(
        refused("profiles: [{plugins: {score: {enabled: [{name: NodeAffinity}, {name: Nobody}]}}}]"),
        ("profiles[0].plugins.score.enabled[1].name".to_owned(), unknown("Nobody"))
    );
    assert_eq!(
        refused("profiles: [{plugins: {score: {enabled: [{name: NodePorts}]}}}]"),
        ("profiles[0].plugins.score.enabled[0].name".to_owned(), unknown("NodePorts"))
    );
    assert!(matches!(
        refused("profiles: [{plugins: {preFilter: {disabled: [{name: NodePorts}]}}}]").1,
        ConfigReason::Unsupported(_)
    ));
    assert_eq!(
        refused("profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]"),
        ("profiles[0].plugins.bind.enabled".to_owned(), ConfigReason::Required)
    );
    assert_eq!(
        refused("profiles: [{schedulerName: a}, {schedulerName: a}]"),
        ("profiles[1].schedulerName".to_owned(), ConfigReason::Duplicate("a".to_owned()))
    );
    let path = "profiles[0].pluginConfig[0]";
    assert_eq!(plugin("{name: Nobody}"), (format!("{path}.name"), unknown("Nobody")));
    assert_eq!(plugin("{name: NodePorts, args: {x: 1}}"), (format!("{path}.args.x"), ConfigReason::UnknownField));
    assert_eq!(
        plugin("{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}").0,
        format!("{path}.args.hardPodAffinityWeight")
    );
    assert_eq!(
        plugin("{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}").0,
        format!("{path}.args.scoringStrategy.type")
    );
    assert_eq!(
        plugin("{name: NodeAffinity, args: {addedAffinity: {requiredDuring: {}}}}"),
        (format!("{path}.args.addedAffinity.requiredDuring"), ConfigReason::UnknownField)
    );
    assert_eq!(
        plugin("{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 0}]}}").0,
        format!("{path}.args.defaultConstraints[0].maxSkew")
    );
    assert_eq!(plugin("{name: NodePorts, args: {kind: InterPodAffinityArgs}}").0, format!("{path}.args.kind"));
    let devices = |args: &str| plugin(&format!("{{name: DynamicResources, args: {args}}}"));
    let invalid =
        |value: &str, expected: &str| ConfigReason::Invalid { value: value.into(), expected: expected.into() };
    assert_eq!(
        devices("{filterTimeout: -1s}"),
        (format!("{path}.args.filterTimeout"), invalid("-1s", "must be zero or positive"))
    );
    assert_eq!(
        devices("{bindingTimeout: 999ms}"),
        (format!("{path}.args.bindingTimeout"), invalid("999ms", "must be at least 1 second"))
    );
    assert_eq!(devices("{bindingTimeout: 5}").1, ConfigReason::Type("a string"));
    assert_eq!(devices("{bindingTimeout: soon}").1, invalid("soon", "must be a time such as 15s"));
    assert_eq!(devices("{timeout: 5s}"), (format!("{path}.args.timeout"), ConfigReason::UnknownField));
    let error = Configuration::from_yaml("kind: KubeSchedulerConfiguration").unwrap_err();
    assert_eq!(error.to_string(), "apiVersion: required");
}

/// Refuses every node but one.
struct Only(String);

impl Plugin for Only {
    fn name(&self) -> &'static str {
        "Only"
    }
}

impl PreFilter for Only {
    fn pre_filter<'a>(&'a self, _pod: &'a PodInfo, _cluster: &'a Snapshot) -> Prepared<'a> {
        Prepared::per_node(|node| {
            (node.name() != self.0).then(|| orchestrator_core::scheduler::Rejection::new("Only", "not this one"))
        })
    }
}

#[test]
fn own_plugins_are_named_and_get_their_arguments() {
    let mut registry = Registry::default();
    registry.add("Only", |arguments| {
        let arguments: std::collections::BTreeMap<String, String> = arguments.decode()?;
        let node = arguments.get("node").cloned().unwrap_or_default();
        Ok(Parts { filter: Some(Arc::new(Only(node))), ..Parts::default() })
    });
    let text = format!(
        "{HEAD}profiles: [{{plugins: {{multiPoint: {{enabled: [{{name: Only}}]}}}}, \
         pluginConfig: [{{name: Only, args: {{node: b}}}}]}}]"
    );
    let profile = Configuration::from_yaml_with(&text, &registry).unwrap().profiles.remove(0);
    let mut cluster = Snapshot::default();
    for name in ["a", "b", "c"] {
        cluster.set_node(node(name, json!({})));
    }
    assert_eq!(verdict(&profile, &pod(json!({})), &cluster), "b");
}
