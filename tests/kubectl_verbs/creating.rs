//! Every generator of `kubectl create`, and `run`, `expose` and `autoscale`.

use std::collections::BTreeSet;

use crate::Stage;

/// Commands after `create`, and what each says.
const GENERATED: &[(&str, &str)] = &[
    (
        "clusterrole reader --verb=get,list --resource=pods,deployments.apps/scale",
        "clusterrole.rbac.authorization.k8s.io/reader",
    ),
    ("clusterrole urls --verb=get --non-resource-url=/logs/*", "clusterrole.rbac.authorization.k8s.io/urls"),
    ("clusterrole sum --aggregation-rule=example.com/sum=true", "clusterrole.rbac.authorization.k8s.io/sum"),
    (
        "clusterrolebinding readers --clusterrole=reader --user=ann --group=staff --serviceaccount=default:default",
        "clusterrolebinding.rbac.authorization.k8s.io/readers",
    ),
    ("configmap settings --from-literal=a=b", "configmap/settings"),
    ("cronjob nightly --image=work:1 '--schedule=0 3 * * *' -- true", "cronjob.batch/nightly"),
    ("deployment web --image=web:1 --replicas=0 --port=80", "deployment.apps/web"),
    (
        "ingress front --class=nginx --rule=example.com/path*=web:80,tls=cert --default-backend=web:80 --annotation=a=b",
        "ingress.networking.k8s.io/front",
    ),
    ("job once --image=work:1 -- true", "job.batch/once"),
    ("job tonight --from=cronjob/nightly", "job.batch/tonight"),
    ("namespace other", "namespace/other"),
    ("poddisruptionbudget some --selector=app=web --min-available=50%", "poddisruptionbudget.policy/some"),
    (
        "priorityclass high --value=1000 --description=urgent --preemption-policy=Never",
        "priorityclass.scheduling.k8s.io/high",
    ),
    ("quota few --hard=pods=2,requests.cpu=1 --scopes=NotTerminating", "resourcequota/few"),
    ("role logs --verb=get --resource=pods/log --resource-name=web", "role.rbac.authorization.k8s.io/logs"),
    ("rolebinding logs --role=logs --user=ann", "rolebinding.rbac.authorization.k8s.io/logs"),
    ("secret generic word --from-literal=a=b --type=example.com/word", "secret/word"),
    (
        "secret docker-registry pull --docker-server=example.com --docker-username=u --docker-password=p --docker-email=e@example.com",
        "secret/pull",
    ),
    ("service clusterip inside --tcp=80:8080", "service/inside"),
    ("service clusterip headless --clusterip=None", "service/headless"),
    ("service nodeport outside --tcp=80 --node-port=30111", "service/outside"),
    ("service loadbalancer balanced --tcp=80", "service/balanced"),
    ("service externalname elsewhere --external-name=example.com", "service/elsewhere"),
    ("serviceaccount robot", "serviceaccount/robot"),
];

#[test]
fn every_generator_makes_its_object() {
    let stage = Stage::new("create");
    let kubectl = &stage.kubectl;
    // Nothing that `kubectl` can create is missing from the table, but for what the test below does.
    let help = kubectl.ok("create --help");
    let listed =
        help.lines().skip_while(|line| *line != "Available Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed: BTreeSet<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    let made: BTreeSet<&str> = GENERATED.iter().filter_map(|(command, _)| command.split_whitespace().next()).collect();
    assert_eq!(listed.difference(&made).collect::<Vec<_>>(), [&"token"]);

    for (command, object) in GENERATED {
        // The same object by all ways: shown only, tried by the server, and made.
        if !command.contains("--from=cronjob") {
            let shown = kubectl.ok(&format!("create --dry-run=client -o yaml {command}"));
            let tried = kubectl.run_with("create --dry-run=server -f -", &shown);
            assert_eq!(tried.stdout, format!("{object} created (server dry run)\n"), "{command}: {tried:#?}");
        }
        kubectl.says(&format!("create {command}"), &format!("{object} created"));
    }
    let exists = kubectl.run("create namespace other");
    assert_eq!(exists.stderr, "Error from server (AlreadyExists): namespaces \"other\" already exists\n");
    assert_eq!(
        kubectl.ok("get ingress front -o jsonpath={.spec.rules[0].http.paths[0].pathType}{.spec.tls[0].hosts[0]}"),
        "Prefixexample.com"
    );
    assert_eq!(
        kubectl.ok("get job tonight -o 'jsonpath={.metadata.annotations.cronjob\\.kubernetes\\.io/instantiate}'"),
        "manual"
    );
    assert_eq!(kubectl.ok("get service headless -o jsonpath={.spec.clusterIP}"), "None");
}

#[test]
fn what_comes_from_files() {
    let stage = Stage::new("files");
    let kubectl = &stage.kubectl;
    let file = stage.write("notes.txt", "one\ntwo\n");
    let environment = stage.write("env", "A=1\n# a comment\nB=two words\n");
    kubectl.ok(&format!("create configmap notes --from-file={file} --from-file=copy={file}"));
    assert_eq!(
        kubectl.ok("get configmap notes -o jsonpath={.data}"),
        r#"{"copy":"one\ntwo\n","notes.txt":"one\ntwo\n"}"#
    );
    kubectl.ok(&format!("create configmap variables --from-env-file={environment}"));
    assert_eq!(kubectl.ok("get configmap variables -o jsonpath={.data}"), r#"{"A":"1","B":"two words"}"#);
    let (certificate, key) = key_pair(&stage);
    kubectl.says(&format!("create secret tls cert --cert={certificate} --key={key}"), "secret/cert created");
    assert_eq!(kubectl.ok("get secret cert -o jsonpath={.type}"), "kubernetes.io/tls");
}

/// The files of a certificate and its key: those of the configuration itself.
fn key_pair(stage: &Stage) -> (String, String) {
    let part = |name: &str| {
        let template = format!("{{{{index (index .users 0).user \"{name}\" | base64decode}}}}");
        stage.write(name, &stage.kubectl.ok(&format!("config view --raw -o 'go-template={template}'")))
    };
    (part("client-certificate-data"), part("client-key-data"))
}
