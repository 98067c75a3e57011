//! Every `kubectl` command of the course, in its order, with its manifests.

use crate::{Test, reading::Rows, stage::Stage, support::file};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_pod", a_pod),
    ("a_replica_set_and_a_deployment", a_replica_set_and_a_deployment),
    ("namespaces", namespaces),
    ("services", services),
    ("a_stateful_set", a_stateful_set),
];

/// The names in a table, those with a prefix.
fn names<'a>(rows: &'a Rows, prefix: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row["NAME"].as_str()).filter(|name| name.starts_with(prefix)).collect()
}

/// Every row has these cells.
#[track_caller]
fn assert_cells(rows: &Rows, cells: &[(&str, &str)]) {
    for row in rows {
        for (column, expected) in cells {
            assert_eq!(row.get(*column).map(String::as_str), Some(*expected), "{column} in {row:?}");
        }
    }
}

/// An age of seconds or a few minutes.
#[track_caller]
fn assert_young(rows: &Rows) {
    for row in rows {
        let age = &row["AGE"];
        assert!(age.ends_with('s') || age.ends_with('m'), "{age}");
    }
}

fn a_pod(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let empty = kubectl.run("get pods -n kube-system");
    assert_eq!((empty.code, empty.stderr.as_str()), (0, "No resources found in kube-system namespace.\n"));

    let manifest = file("tests/seed/pod-busybox.yaml");
    kubectl.says(&format!("create -f {manifest}"), "pod/my-first-pod created");
    kubectl.says("wait --for=condition=Ready pod/my-first-pod --timeout=60s", "pod/my-first-pod condition met");
    let pods = kubectl.table("get pods");
    assert_eq!(names(&pods, ""), ["my-first-pod"]);
    assert_eq!(pods[0].keys().collect::<Vec<_>>(), ["AGE", "NAME", "READY", "RESTARTS", "STATUS"]);
    assert_cells(&pods, &[("READY", "1/1"), ("STATUS", "Running"), ("RESTARTS", "0")]);
    assert_young(&pods);
    kubectl.comes_to_say("logs my-first-pod", "Hello DevOps!\n");
    kubectl.fails(
        &format!("create -f {manifest}"),
        &format!(
            "Error from server (AlreadyExists): error when creating \"{manifest}\": pods \"my-first-pod\" already exists"
        ),
    );
    kubectl.says("delete pod my-first-pod --now", "pod \"my-first-pod\" deleted");
    kubectl.fails("get pod my-first-pod", "Error from server (NotFound): pods \"my-first-pod\" not found");
}

fn a_replica_set_and_a_deployment(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let manifest = file("examples/manifests/replicaset.yaml");
    kubectl.says(&format!("create -f {manifest}"), "replicaset.apps/high-available-hello created");
    kubectl.says(
        "wait --for=jsonpath={.status.readyReplicas}=3 replicaset/high-available-hello --timeout=60s",
        "replicaset.apps/high-available-hello condition met",
    );
    let sets = kubectl.table("get replicaset");
    assert_eq!(names(&sets, ""), ["high-available-hello"]);
    assert_cells(&sets, &[("DESIRED", "3"), ("CURRENT", "3"), ("READY", "3")]);
    assert_young(&sets);
    let pods = kubectl.table("get pods");
    assert_eq!(names(&pods, "high-available-hello-").len(), 3);
    assert_cells(&pods, &[("READY", "1/1"), ("STATUS", "Running"), ("RESTARTS", "0")]);

    let manifest = file("tests/seed/deployment-definition.yaml");
    kubectl.says(&format!("create -f {manifest}"), "deployment.apps/my-first-deployment created");
    let progress = kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    assert!(progress.ends_with("deployment \"my-first-deployment\" successfully rolled out\n"), "{progress}");
    let deployments = kubectl.table("get deployment");
    assert_eq!(names(&deployments, ""), ["my-first-deployment"]);
    assert_cells(&deployments, &[("READY", "3/3"), ("UP-TO-DATE", "3"), ("AVAILABLE", "3")]);
    assert_young(&deployments);
    let sets = kubectl.table("get replicaset");
    assert_eq!((sets.len(), names(&sets, "my-first-deployment-").len()), (2, 1));
    assert_cells(&sets, &[("DESIRED", "3"), ("CURRENT", "3"), ("READY", "3")]);
    let set = names(&sets, "my-first-deployment-")[0].to_owned();
    let pods = kubectl.table("get pods");
    assert_eq!((pods.len(), names(&pods, &format!("{set}-")).len()), (6, 3));

    // Self-healing: the set makes up for a pod that is gone.
    let victim = names(&pods, "high-available-hello-")[0];
    kubectl.says(&format!("delete pod {victim} --now"), &format!("pod \"{victim}\" deleted"));
    kubectl.ok("wait --for=jsonpath={.status.readyReplicas}=3 replicaset/high-available-hello --timeout=60s");
    let pods = kubectl.table("get pods -l app=hello");
    assert_eq!(pods.len(), 3);
    assert!(!names(&pods, "").contains(&victim));
    // What a Deployment made goes with it.
    kubectl.says("delete deployment my-first-deployment", "deployment.apps \"my-first-deployment\" deleted");
    kubectl.ok("wait --for=delete pod -l app=nginx --timeout=60s");
    assert_eq!(names(&kubectl.table("get replicaset"), ""), ["high-available-hello"]);
}

fn namespaces(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let manifest = file("tests/seed/pod-definition.yaml");
    kubectl.says(&format!("create -f {manifest}"), "pod/myapp-pod created");
    kubectl.ok("wait --for=condition=Ready pod/myapp-pod --timeout=60s");
    assert_eq!(names(&kubectl.table("get pods"), ""), ["myapp-pod"]);
    let empty = kubectl.run("get pods --namespace=kube-system");
    assert_eq!((empty.code, empty.stderr.as_str()), (0, "No resources found in kube-system namespace.\n"));
    kubectl.fails(
        &format!("create -f {manifest} --namespace=dev"),
        &format!("Error from server (NotFound): error when creating \"{manifest}\": namespaces \"dev\" not found"),
    );
    let dev = file("tests/seed/namespace-dev.yaml");
    kubectl.says(&format!("create -f {dev}"), "namespace/dev created");
    kubectl.fails("create namespace dev", "Error from server (AlreadyExists): namespaces \"dev\" already exists");
    kubectl.ok("wait --for=create serviceaccount/default --namespace=dev --timeout=30s");
    kubectl.says(&format!("create -f {manifest} --namespace=dev"), "pod/myapp-pod created");
    kubectl.ok("wait --for=condition=Ready pod/myapp-pod --namespace=dev --timeout=60s");
    let pods = kubectl.table("get pods --all-namespaces");
    let places: Vec<&str> = pods.iter().map(|row| row["NAMESPACE"].as_str()).collect();
    assert_eq!(places, ["default", "dev"]);
    assert_cells(&pods, &[("NAME", "myapp-pod"), ("READY", "1/1"), ("STATUS", "Running")]);
    // A namespace takes everything in it along.
    kubectl.ok("delete pod myapp-pod --namespace=dev --now");
    let dev_pod = file("tests/seed/pod-definition-dev.yaml");
    kubectl.says(&format!("create -f {dev_pod}"), "pod/myapp-pod created");
    kubectl.ok("wait --for=condition=Ready pod/myapp-pod --namespace=dev --timeout=60s");
    kubectl.says("delete namespace dev", "namespace \"dev\" deleted");
    kubectl.fails("get namespace dev", "Error from server (NotFound): namespaces \"dev\" not found");
    assert_eq!(kubectl.table("get pods --all-namespaces").len(), 1);
    kubectl.says("create namespace dev", "namespace/dev created");
    let namespaces = kubectl.table("get namespaces");
    assert_eq!(names(&namespaces, ""), ["default", "dev", "kube-node-lease", "kube-public", "kube-system"]);
    assert_cells(&namespaces, &[("STATUS", "Active")]);
}

fn services(stage: &Stage) {
    let kubectl = &stage.kubectl;
    let manifest = file("examples/manifests/services.yaml");
    assert_eq!(
        kubectl.ok(&format!("create -f {manifest}")),
        "service/myapp-service created\nservice/back-end created\nservice/front-end created\nservice/nginx created\n"
    );
    let services = kubectl.table("get services");
    assert_eq!(names(&services, ""), ["back-end", "front-end", "kubernetes", "myapp-service", "nginx"]);
    let seen: Vec<[&str; 3]> =
        services.iter().map(|row| ["TYPE", "EXTERNAL-IP", "PORT(S)"].map(|column| row[column].as_str())).collect();
    assert_eq!(seen[0], ["ClusterIP", "<none>", "80/TCP"]);
    assert_eq!(seen[1][..2], ["LoadBalancer", "<pending>"]);
    assert_eq!(seen[2], ["ClusterIP", "<none>", "443/TCP"]);
    assert_eq!(seen[3], ["NodePort", "<none>", "80:30008/TCP"]);
    assert_eq!(seen[4], ["ClusterIP", "<none>", "80/TCP"]);
    assert_eq!(services[2]["CLUSTER-IP"], "10.96.0.1");
    assert_eq!(services[4]["CLUSTER-IP"], "None");

    // The Service finds its pods.
    kubectl.ok(&format!("create -f {}", file("tests/seed/deployment-definition.yaml")));
    kubectl.ok("rollout status deployment/my-first-deployment --timeout=60s");
    let slice = "get endpointslices -l kubernetes.io/service-name=back-end -o";
    kubectl.ok("wait --for=jsonpath={.endpoints[2].conditions.ready}=true endpointslices -l kubernetes.io/service-name=back-end --timeout=30s");
    let addresses = kubectl.ok(&format!("{slice} jsonpath={{.items[*].endpoints[*].addresses[0]}}"));
    let of_pods = kubectl.ok("get pods -l app=nginx -o jsonpath={.items[*].status.podIP}");
    let sorted = |text: &str| {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        words.sort();
        words
    };
    assert_eq!(sorted(&addresses), sorted(&of_pods));
    // And every pod reaches every other one.
    let address = of_pods.split(' ').next().unwrap();
    let get = format!(
        "run get --image=busybox --restart=Never --attach=false -- python3 -c \
         'import urllib.request; print(urllib.request.urlopen(\"http://{address}\").read().decode(), end=\"\")'"
    );
    kubectl.says(&get, "pod/get created");
    kubectl.ok("wait --for=jsonpath={.status.phase}=Succeeded pod/get --timeout=60s");
    kubectl.says("logs get", "Welcome to nginx");
}

fn a_stateful_set(stage: &Stage) {
    let kubectl = &stage.kubectl;
    kubectl.ok(&format!("create -f {}", file("examples/manifests/services.yaml")));
    let manifest = file("examples/manifests/statefulset.yaml");
    kubectl.says(&format!("create -f {manifest}"), "statefulset.apps/my-first-statefulset created");
    let progress = kubectl.ok("rollout status statefulset/my-first-statefulset --timeout=90s");
    let last = progress.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("partitioned roll out complete")
            || last.starts_with("statefulset rolling update complete 3 pods at revision my-first-statefulset-"),
        "{progress}"
    );
    let sets = kubectl.table("get statefulset");
    assert_cells(&sets, &[("NAME", "my-first-statefulset"), ("READY", "3/3")]);
    let pods = kubectl.table("get pods");
    assert_eq!(names(&pods, ""), ["my-first-statefulset-0", "my-first-statefulset-1", "my-first-statefulset-2"]);
    let claims = kubectl.table("get pvc");
    assert_eq!(
        names(&claims, ""),
        ["www-my-first-statefulset-0", "www-my-first-statefulset-1", "www-my-first-statefulset-2"]
    );
    assert_cells(
        &claims,
        &[("STATUS", "Bound"), ("CAPACITY", "1Gi"), ("ACCESS MODES", "RWO"), ("STORAGECLASS", "local-directory")],
    );
    // What a pod wrote is there for its successor.
    kubectl.ok("exec my-first-statefulset-1 -- sh -c 'echo kept > /usr/share/nginx/html/file'");
    let uid = "get pod my-first-statefulset-1 -o jsonpath={.metadata.uid}";
    let before = kubectl.ok(uid);
    kubectl.ok("delete pod my-first-statefulset-1 --now");
    kubectl.ok("wait --for=create pod/my-first-statefulset-1 --timeout=30s");
    kubectl.ok("wait --for=condition=Ready pod/my-first-statefulset-1 --timeout=60s");
    assert_ne!(before, kubectl.ok(uid));
    kubectl.says("exec my-first-statefulset-1 -- cat /usr/share/nginx/html/file", "kept");
    // Volumes outlive the set, and go with their claims.
    kubectl.says("delete statefulset my-first-statefulset", "statefulset.apps \"my-first-statefulset\" deleted");
    kubectl.ok("wait --for=delete pod -l app=nginx-set --timeout=60s");
    assert_eq!(kubectl.table("get pv").len(), 3);
    kubectl.ok("delete pvc --all");
    kubectl.ok("wait --for=delete pv --all --timeout=60s");
}
