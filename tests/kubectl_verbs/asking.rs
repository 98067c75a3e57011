//! What `kubectl` asks a server about itself: `explain`, `api-resources`, `api-versions`, `auth`, completion, `proxy`.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::Stage;

#[test]
fn fields_are_explained() {
    let stage = Stage::new("explain");
    let kubectl = &stage.kubectl;
    let pods = kubectl.ok("explain pods");
    assert!(
        pods.starts_with("KIND:       Pod\nVERSION:    v1\n\nDESCRIPTION:\n    Pod is a collection of containers"),
        "{pods}"
    );
    let recursive = kubectl.ok("explain deployments --recursive");
    for line in [
        "  spec\t<DeploymentSpec>\n    minReadySeconds\t<integer>\n",
        "\n    selector\t<LabelSelector> -required-\n      matchExpressions\t<[]LabelSelectorRequirement>\n        key\t<string> -required-\n",
        "\n          env\t<[]EnvVar>\n            name\t<string> -required-\n",
        "\n    strategy\t<DeploymentStrategy>\n      rollingUpdate\t<RollingUpdateDeployment>\n",
    ] {
        assert!(recursive.contains(line), "{line:?} is not in\n{recursive}");
    }
    let field = kubectl.ok("explain pod.spec.containers.resources.limits");
    assert!(field.contains("\nFIELD: limits <map[string]Quantity>\n"), "{field}");
    let version = kubectl.ok("explain horizontalpodautoscaler.spec --api-version=autoscaling/v1");
    assert!(
        version.starts_with("GROUP:      autoscaling\nKIND:       HorizontalPodAutoscaler\nVERSION:    v1\n"),
        "{version}"
    );
    assert!(version.contains("targetCPUUtilizationPercentage"), "{version}");
    let older = kubectl.ok("explain pods.status --output=plaintext-openapiv2");
    assert!(older.starts_with("KIND:     Pod\nVERSION:  v1\n\nRESOURCE: status <Object>\n"), "{older}");
    kubectl.fails("explain pods.nothing", "error: field \"nothing\" does not exist");
    kubectl.fails("explain nothing", "the server doesn't have a resource type \"nothing\"");
}

#[test]
fn custom_kinds_are_discovered_and_explained() {
    let stage = Stage::new("custom");
    let kubectl = &stage.kubectl;
    let definition = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"kettles.example.com"},
        "spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"kettles","singular":"kettle","kind":"Kettle","shortNames":["ket"]},
        "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","description":"Kettle boils water.",
        "properties":{"spec":{"type":"object","properties":{"litres":{"type":"integer","description":"How much goes in."}}}}}},
        "additionalPrinterColumns":[{"name":"Litres","type":"integer","jsonPath":".spec.litres"}]}]}}"#;
    kubectl.ok(&format!("create -f {}", stage.write("definition.json", definition)));
    kubectl.ok("wait --for=condition=Established crd/kettles.example.com --timeout=30s");
    kubectl
        .says("api-resources --api-group=example.com --no-headers", "kettles   ket   example.com/v1   true   Kettle");
    let explained = kubectl.ok("explain kettle.spec.litres");
    assert_eq!(
        explained,
        "GROUP:      example.com\nKIND:       Kettle\nVERSION:    v1\n\nFIELD: litres <integer>\n\n\nDESCRIPTION:\n    How much goes in.\n    \n\n"
    );
    let kettle = r#"{"apiVersion":"example.com/v1","kind":"Kettle","metadata":{"name":"tea"},"spec":{"litres":2}}"#;
    kubectl.says(&format!("apply -f {}", stage.write("kettle.json", kettle)), "kettle.example.com/tea created");
    let lid = r#"{"apiVersion":"example.com/v1","kind":"Kettle","metadata":{"name":"lid"},"spec":{"lid":true}}"#;
    let lid = stage.write("lid.json", lid);
    kubectl.fails(
        &format!("create -f {lid}"),
        &format!(
            "Error from server (BadRequest): error when creating \"{lid}\": Kettle in version \"v1\" cannot be handled as a \
             Kettle: strict decoding error: unknown field \"spec.lid\""
        ),
    );
    let warned = kubectl.run(&format!("create --validate=warn --dry-run=server -o jsonpath={{.spec}} -f {lid}"));
    assert_eq!((warned.stdout.as_str(), warned.stderr.as_str()), ("{}", "Warning: unknown field \"spec.lid\"\n"));
    let row = &kubectl.table("get ket")[0];
    assert_eq!((row["NAME"].as_str(), row["LITRES"].as_str()), ("tea", "2"));
    kubectl.says(r#"patch ket tea --type=merge -p {"spec":{"litres":3}}"#, "kettle.example.com/tea patched");
    assert_eq!(kubectl.ok("get kettles.v1.example.com tea -o jsonpath={.spec.litres}"), "3");
}

#[test]
fn resources_and_versions_are_listed() {
    let stage = Stage::new("resources");
    let kubectl = &stage.kubectl;
    let all: BTreeSet<String> = kubectl.ok("api-resources --no-headers").lines().map(without_spaces).collect();
    let table = std::fs::read_to_string(crate::support::file("tests/data/api-resources.tsv")).unwrap();
    let expected: BTreeSet<String> = table.lines().filter_map(expected_row).collect();
    assert_eq!(all, expected);
    let versions: BTreeSet<String> = kubectl.ok("api-versions").lines().map(str::to_owned).collect();
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let expected: BTreeSet<String> = lines.filter_map(|line| line.split('\t').next()).map(str::to_owned).collect();
    assert_eq!(versions, expected);
    kubectl.says("api-resources --api-group=batch -o name", "cronjobs.batch\njobs.batch");
    let workloads = kubectl.ok("api-resources --categories=all -o name");
    assert!(workloads.lines().any(|line| line == "statefulsets.apps") && !workloads.contains("secrets"), "{workloads}");
    let cluster = kubectl.ok("api-resources --namespaced=false --verbs=deletecollection -o name");
    assert!(
        cluster.lines().any(|line| line == "nodes") && !cluster.lines().any(|line| line == "namespaces"),
        "{cluster}"
    );
}

/// A line of the published table as `kubectl` shows it: parts of resources, and versions that are not the preferred ones, are
/// not listed.
fn expected_row(line: &str) -> Option<String> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [version, name, _, kind, namespaced, _, short, ..] = columns[..] else { return None };
    let shown = !line.starts_with('#')
        && !name.contains('/')
        && (version, name) != ("autoscaling/v1", "horizontalpodautoscalers");
    shown.then(|| without_spaces(&format!("{name} {short} {version} {namespaced} {kind}")))
}

fn without_spaces(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn who_one_is() {
    let stage = Stage::new("whoami");
    let kubectl = &stage.kubectl;
    kubectl.says(
        "auth whoami --as=jane --as-group=dev --as-uid=7",
        "ATTRIBUTE   VALUE\nUsername    jane\nUID         7\nGroups      [dev system:authenticated]",
    );
    let review: Value = serde_json::from_str(&kubectl.ok("auth whoami -o json")).unwrap();
    assert_eq!(
        (&review["kind"], &review["apiVersion"]),
        (&"SelfSubjectReview".into(), &"authentication.k8s.io/v1".into())
    );
    assert_eq!(review["status"]["userInfo"]["groups"], serde_json::json!(["system:masters", "system:authenticated"]));
    let name = kubectl.ok("auth whoami -o jsonpath={.status.userInfo.username}");
    assert_eq!(review["status"]["userInfo"]["username"], name);
    // Whoever comes with the token of an account is that account.
    let token = kubectl.ok("create token default --duration=1h");
    kubectl.ok(&format!("config set-credentials robot --token={}", token.trim()));
    assert_eq!(
        kubectl.ok("auth whoami --user=robot -o jsonpath={.status.userInfo.username}"),
        "system:serviceaccount:default:default"
    );
    kubectl.says("auth can-i delete nodes", "yes");
    let no = kubectl.run("auth can-i delete nodes --user=robot");
    assert_eq!((no.code, no.stdout.as_str()), (1, "no\n"));
    // What one may do is listed: rows of resources, paths, names and verbs.
    let mine = kubectl.ok("auth can-i --list");
    assert!(mine.starts_with("Resources   Non-Resource URLs   Resource Names   Verbs\n"), "{mine}");
    let rows: Vec<String> = mine.lines().skip(1).map(without_spaces).collect();
    assert_eq!(rows, ["*.* [] [] [*]", "[*] [] [*]"]);
    let others = kubectl.ok("auth can-i --list --user=robot");
    let rows: BTreeSet<String> = others.lines().map(without_spaces).collect();
    for row in
        ["selfsubjectrulesreviews.authorization.k8s.io [] [] [create]", "[/healthz] [] [get]", "[/api/*] [] [get]"]
    {
        assert!(rows.contains(row), "{row} is not in\n{others}");
    }
    assert!(!others.contains("*.*"), "{others}");
    let nowhere = kubectl.run_with(
        "create -f -",
        "{\"apiVersion\": \"authorization.k8s.io/v1\", \"kind\": \"SelfSubjectRulesReview\", \"spec\": {}}",
    );
    assert_eq!(
        nowhere.stderr,
        "Error from server (BadRequest): error when creating \"STDIN\": no namespace on request\n"
    );
    let parts = kubectl.run("get componentstatuses");
    assert_eq!(parts.stderr, "Warning: v1 ComponentStatus is deprecated in v1.19+\nNo resources found\n");
}

#[test]
fn names_are_completed() {
    let stage = Stage::new("complete");
    let kubectl = &stage.kubectl;
    kubectl.ok("create deployment web --image=web:1 --replicas=0");
    kubectl.ok("create namespace other");
    let complete = |line: &str| {
        let text = kubectl.ok(&format!("__complete {line}"));
        let names: Vec<String> = text.lines().take_while(|line| !line.starts_with(':')).map(str::to_owned).collect();
        names
    };
    assert_eq!(complete("get deployments ''"), ["web"]);
    assert_eq!(complete("get deployments/"), ["deployments/web"]);
    assert_eq!(complete("rollout status deployment/"), ["deployment/web"]);
    assert_eq!(complete("get pods -n o"), ["other"]);
    assert_eq!(complete("describe no"), ["nodes"]);
    assert_eq!(complete("get dep"), ["deployments.apps"]);
    assert_eq!(complete("cordon ''"), ["node-1"]);
    assert_eq!(complete("get configmap kube-"), ["kube-root-ca.crt"]);
    assert_eq!(complete("rollout undo deployment ''"), ["web"]);
    assert!(kubectl.ok("completion bash").contains("__kubectl_get_completion_results"));
}

#[test]
fn pods_and_services_are_asked_through_the_server() {
    let stage = Stage::new("through");
    let kubectl = &stage.kubectl;
    kubectl.ok("run web --image=web:1 --port=8080 --expose");
    kubectl.ok("wait --for=condition=Ready pod/web --timeout=60s");
    let namespace = "/api/v1/namespaces/default";
    assert_eq!(kubectl.ok(&format!("get --raw {namespace}/pods/web:8080/proxy/")), "hello");
    assert_eq!(kubectl.ok(&format!("get --raw {namespace}/pods/web/proxy/any?thing")), "hello");
    let ready = "-o custom-columns=READY:.endpoints[0].conditions.ready --no-headers --watch";
    let slices = format!("get endpointslices -l kubernetes.io/service-name=web {ready}");
    kubectl.follow(&slices, |line| line.trim() == "true");
    assert_eq!(kubectl.ok(&format!("get --raw {namespace}/services/web:8080/proxy/")), "hello");
    let refused = kubectl.run(&format!("get --raw {namespace}/pods/web:81/proxy/"));
    let words = "error trying to reach service: dial tcp4 127.0.0.1:81: connect: connection refused";
    assert!(refused.code == 1 && refused.stderr.contains(words), "{refused:?}");
}

#[test]
fn the_server_shows_what_it_counts_and_how_it_is() {
    let stage = Stage::new("shows");
    let kubectl = &stage.kubectl;
    let metrics = kubectl.ok("get --raw /metrics");
    for family in [
        "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"serviceaccounts\"",
        "apiserver_flowcontrol_dispatched_requests_total{",
        "etcd_request_duration_seconds_bucket{",
        "workqueue_depth{name=\"deployment\"}",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(family)), "{family} in {metrics}");
    }
    let verbose = kubectl.ok("get --raw /readyz?verbose");
    assert!(verbose.contains("[+]etcd ok\n") && verbose.contains("readyz check passed"), "{verbose}");
}

#[test]
fn a_proxy_passes_requests_on() {
    let stage = Stage::new("proxy");
    let kubectl = stage.kubectl.clone();
    let answers = std::cell::RefCell::new(Vec::new());
    let lines = kubectl.follow("proxy --port=0 --www-prefix=/static/", |line| {
        let address = line.strip_prefix("Starting to serve on ").unwrap();
        for path in ["/api/v1/namespaces/default", "/version", "/apis/apps/v1/deployments?limit=1", "/nothing"] {
            answers.borrow_mut().push(get(address, path));
        }
        true
    });
    assert_eq!(lines.len(), 1);
    let answers = answers.into_inner();
    let codes: Vec<&str> = answers.iter().map(|answer| &answer[9..12]).collect();
    assert_eq!(codes, ["200", "200", "200", "404"], "{answers:#?}");
    assert!(answers[0].contains("\"kind\":\"Namespace\""), "{}", answers[0]);
    assert!(answers[1].contains("\"gitVersion\""), "{}", answers[1]);
    assert!(answers[2].contains("DeploymentList"), "{}", answers[2]);
}

/// One request over HTTP, and all of the answer.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
