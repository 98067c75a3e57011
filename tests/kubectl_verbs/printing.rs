//! `get` in every output form.

use serde_json::Value;

use crate::{Stage, WEB, config_map};

#[test]
fn every_output_form() {
    let stage = Stage::new("output");
    let kubectl = &stage.kubectl;
    let maps =
        stage.write("maps.yaml", &(config_map("one", "{a: '1', b: 'yes'}") + &config_map("two", "{c: \"x\\ny\"}")));
    kubectl.ok(&format!("create -f {maps}"));
    let get = |form: &str| kubectl.ok(&format!("get configmaps -l set=x -o '{form}'"));
    assert_eq!(get("name"), "configmap/one\nconfigmap/two\n");
    let json: Value = serde_json::from_str(&get("json")).unwrap();
    assert_eq!(
        (&json["kind"], &json["apiVersion"], &json["items"][1]["data"]["c"]),
        (&"List".into(), &"v1".into(), &"x\ny".into())
    );
    let yaml = get("yaml");
    assert!(
        yaml.starts_with(
            "apiVersion: v1\nitems:\n- apiVersion: v1\n  data:\n    a: \"1\"\n    b: \"yes\"\n  kind: ConfigMap\n"
        ),
        "{yaml}"
    );
    assert!(yaml.contains("\n    c: |-\n      x\n      y\n"), "{yaml}");
    assert!(!yaml.contains("managedFields"), "{yaml}");
    assert_eq!(get("jsonpath={.items[*].metadata.name}"), "one two");
    assert_eq!(get("jsonpath={range .items[?(@.data.a)]}{.metadata.name}={.data.a}{\"\\t\"}{end}"), "one=1\t");
    assert_eq!(
        get("jsonpath-as-json={.items[*].data}"),
        "[\n    {\n        \"a\": \"1\",\n        \"b\": \"yes\"\n    },\n    {\n        \"c\": \"x\\ny\"\n    }\n]\n"
    );
    assert_eq!(get("go-template={{range .items}}{{.metadata.name}} {{len .data}};{{end}}"), "one 2;two 1;");
    assert_eq!(
        get("custom-columns=NAME:.metadata.name,A:.data.a,SET:.metadata.labels.set"),
        "NAME   A        SET\none    1        x\ntwo    <none>   x\n"
    );
    let columns = stage.write("columns", "N B\n.metadata.name .data.b\n");
    assert_eq!(get(&format!("custom-columns-file={columns}")), "N     B\none   yes\ntwo   <none>\n");
    for (form, text) in [("go-template-file", "{{len .items}}"), ("jsonpath-file", "{.items[1].kind}")] {
        let file = stage.write(form, text);
        let expected = if form == "jsonpath-file" { "ConfigMap" } else { "2" };
        assert_eq!(get(&format!("{form}={file}")), expected);
    }
    // A table is the server's: its rows follow the columns, with and without their header.
    let rows = kubectl.table("get configmaps -l set=x --show-labels");
    assert_eq!(
        rows.iter().map(|row| (row["NAME"].as_str(), row["DATA"].as_str(), row["LABELS"].as_str())).collect::<Vec<_>>(),
        [("one", "2", "set=x"), ("two", "1", "set=x")]
    );
    assert_eq!(kubectl.ok("get configmaps -l set=x --no-headers").lines().count(), 2);
    let all = kubectl.table("get configmaps -A -l set=x");
    assert_eq!(all[0]["NAMESPACE"], "default");
    assert_eq!(kubectl.run("get configmaps -l set=none").stderr, "No resources found in default namespace.\n");
    let missing = kubectl.run("get configmap one none -o name");
    assert_eq!((missing.code, missing.stdout.as_str()), (1, "configmap/one\n"));
    assert_eq!(missing.stderr, "Error from server (NotFound): configmaps \"none\" not found\n");
    assert_eq!(kubectl.ok("get configmap none --ignore-not-found"), "");
}

#[test]
fn wide_tables_and_parts() {
    let stage = Stage::new("wide");
    let kubectl = &stage.kubectl;
    kubectl.ok(&format!("create -f {}", stage.write("web.json", WEB)));
    kubectl.ok("wait --for=condition=Available deployment/web --timeout=60s");
    let wide = &kubectl.table("get deployment web -o wide")[0];
    assert_eq!(
        (wide["CONTAINERS"].as_str(), wide["IMAGES"].as_str(), wide["SELECTOR"].as_str()),
        ("main,side", "web:1,side:1", "app=web")
    );
    let pod = &kubectl.table("get pods -l app=web -o wide")[0];
    assert_eq!((pod["READY"].as_str(), pod["NODE"].as_str()), ("2/2", "node-1"));
    let scale = &kubectl.table("get deployment web --subresource=scale")[0];
    assert_eq!((scale["DESIRED"].as_str(), scale["AVAILABLE"].as_str()), ("1", "1"));
    assert_eq!(
        kubectl.ok("get deployment web --subresource=scale -o jsonpath={.kind}{.status.selector}"),
        "Scaleapp=web"
    );
    let several = kubectl.ok("get deployments,replicasets,pods -o name");
    let kinds: Vec<&str> = several.lines().filter_map(|line| line.split('/').next()).collect();
    assert_eq!(kinds, ["deployment.apps", "replicaset.apps", "pod"]);
    let raw: Value =
        serde_json::from_str(&kubectl.ok("get --raw /apis/apps/v1/namespaces/default/deployments?limit=1")).unwrap();
    assert_eq!((&raw["kind"], raw["items"].as_array().map(Vec::len)), (&"DeploymentList".into(), Some(1)));
    let described = kubectl.ok("describe deployment web");
    for line in [
        "Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
        "   main:\n    Image:        web:1",
        "NewReplicaSet:   web-",
    ] {
        assert!(described.contains(line), "{line} is not in\n{described}");
    }
}
