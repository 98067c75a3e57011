//! Checks one by one and all together, as probes and people ask for them.

use crate::support::run;

const FLOWS: &str = "poststarthook/priority-and-fairness-config-consumer";

#[test]
fn a_healthy_server_says_so() {
    run(async |api| {
        for path in ["/healthz", "/livez", "/readyz", "/readyz/ping", "/livez/etcd", "/readyz/shutdown"] {
            let answer = api.get(path).await;
            assert_eq!((answer.code, answer.text.as_str()), (200, "ok"), "{path}");
            assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        }
        assert_eq!(api.get(&format!("/livez/{FLOWS}")).await.code, 200);
        let verbose = format!(
            "[+]ping ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]{FLOWS} ok\n[+]shutdown ok\nreadyz check passed\n"
        );
        assert_eq!(api.get("/readyz?verbose").await.text, verbose);
        for path in ["/livez/shutdown", "/readyz/nosuch", "/healthz/poststarthook"] {
            assert_eq!(api.get(path).await.code, 404, "{path}");
        }
    });
}

#[test]
fn what_fails_is_named_to_everyone_and_explained_to_who_asks_for_it() {
    run(async |api| {
        api.set_ill(true);
        let live = api.get("/livez").await;
        assert_eq!(live.code, 500);
        let expected = format!("[+]ping ok\n[-]etcd failed: reason withheld\n[+]{FLOWS} ok\nlivez check failed\n");
        assert_eq!(live.text, expected);
        assert_eq!(api.get("/livez/ping").await.code, 200);
        let etcd = api.get("/livez/etcd").await;
        assert_eq!(etcd.code, 500);
        assert_eq!(etcd.text, "internal server error: the store failed: status: a fault on purpose\n");
        assert_eq!(api.get("/livez?exclude=etcd").await.text, "ok");
        assert_eq!(api.get("/readyz?exclude=etcd&exclude=etcd-readiness").await.code, 200);
        api.set_ill(false);
        assert_eq!(api.get("/livez").await.text, "ok");
    });
}

#[test]
fn what_cannot_be_excluded_is_warned_of() {
    run(async |api| {
        let answer = api.get("/livez?verbose&exclude=ping&exclude=nosuch&exclude=log").await;
        let expected = format!(
            "[+]ping excluded: ok\n[+]etcd ok\n[+]{FLOWS} ok\nwarn: some health checks cannot be excluded: no matches for \
             \"log\", \"nosuch\"\nlivez check passed\n"
        );
        assert_eq!((answer.code, answer.text), (200, expected));
    });
}

#[test]
fn a_server_that_is_about_to_end_lives_but_is_not_ready() {
    run(async |api| {
        api.server.drain();
        assert_eq!(api.get("/livez").await.code, 200);
        assert_eq!(api.get("/api/v1/namespaces/default").await.code, 200);
        let ready = api.get("/readyz").await;
        assert_eq!(ready.code, 500);
        assert!(ready.text.contains("[-]shutdown failed: reason withheld\n"), "{}", ready.text);
    });
}
