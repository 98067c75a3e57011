//! Who may what: TLS on both sides, users with passwords, tokens that are no longer good.

use std::fs;

use bytes::Bytes;
use etcd_client::{Client, ConnectOptions, Permission, PermissionType};
use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, ListOptions, Revision, Store, StoreError, WatchItem, WatchOptions, WatchStream},
};
use orchestrator_store_etcd::{Credentials, EtcdConfig, EtcdError, EtcdStore, Limits, Tls, TlsIdentity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{
    PATIENCE, cause, config,
    etcd::{Cluster, Options},
    run,
};

/// What members' certificates are for.
const SERVER_NAME: &str = "etcd.example.com";

fn create(key: &str) -> Batch {
    Batch::create(Key::new(key), Bytes::from_static(b"1"))
}

/// The revision of the next changes.
async fn next(env: &Env, watch: &mut WatchStream) -> Revision {
    loop {
        match env.timeout(PATIENCE, watch.next()).await.expect("the watch goes on").expect("the store is open").unwrap()
        {
            WatchItem::Changes { revision, .. } => return revision,
            WatchItem::Bookmark(_) => {}
        }
    }
}

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> TlsIdentity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        TlsIdentity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A member that shows a certificate and wants one, of the same authority.
fn under_tls(authority: &Authority, directory: &TempDir) -> Cluster {
    let server = authority.issue(SERVER_NAME);
    let written = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let arguments = [
        ("--cert-file", written("server.pem", &server.certificate)),
        ("--key-file", written("server.key", &server.key)),
        ("--trusted-ca-file", written("authority.pem", &authority.0.pem())),
    ];
    let mut arguments: Vec<String> = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    arguments.push("--client-cert-auth".to_owned());
    Cluster::start(1, &Options { arguments, tls: true })
}

#[test]
fn both_sides_show_certificates() {
    run(|env| async move {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let directory = TempDir::new().unwrap();
        let cluster = under_tls(&authority, &directory);
        let tls = |authority: &Authority, name: Option<&str>, identity: Option<TlsIdentity>| {
            let tls = Tls { authorities: authority.0.pem(), server_name: name.map(ToOwned::to_owned), identity };
            EtcdConfig { tls: Some(tls), ..config(&cluster, Limits::default()) }
        };
        let good = tls(&authority, Some(SERVER_NAME), Some(authority.issue("client")));
        let store = EtcdStore::connect(&env, good).await.unwrap();
        let mut watch = store.watch(KeyRange::prefix("/"), WatchOptions::default()).await.unwrap();
        let at = store.commit(create("/a")).await.unwrap();
        assert_eq!(next(&env, &mut watch).await, at);

        for (case, config) in [
            ("another authority", tls(&stranger, Some(SERVER_NAME), Some(authority.issue("client")))),
            ("another name", tls(&authority, Some("other.example.com"), Some(authority.issue("client")))),
            ("no name", tls(&authority, None, Some(authority.issue("client")))),
            ("no certificate", tls(&authority, Some(SERVER_NAME), None)),
            ("a stranger's certificate", tls(&authority, Some(SERVER_NAME), Some(stranger.issue("client")))),
        ] {
            let refused = EtcdStore::connect(&env, config).await;
            assert!(matches!(refused, Err(EtcdError::Failed { .. })), "{case}: {refused:?}");
        }
    });
}

/// Has etcd ask for users: root, and ann, who may do everything below /ann/.
async fn with_users(cluster: &Cluster) {
    let mut client = Client::connect(cluster.urls(), None).await.unwrap();
    client.role_add("ann").await.unwrap();
    client.role_grant_permission("ann", below("/ann/")).await.unwrap();
    for (user, role) in [("root", "root"), ("ann", "ann")] {
        client.user_add(user, format!("{user}'s password"), None).await.unwrap();
        client.user_grant_role(user, role).await.unwrap();
    }
    client.auth_enable().await.unwrap();
}

fn below(prefix: &str) -> Permission {
    Permission::new(PermissionType::Readwrite, prefix).with_prefix()
}

fn as_user(cluster: &Cluster, name: &str, password: &str, prefix: &str) -> EtcdConfig {
    let credentials = Some(Credentials { name: name.to_owned(), password: password.to_owned() });
    EtcdConfig { credentials, prefix: prefix.to_owned(), ..config(cluster, Limits::default()) }
}

#[test]
fn users_do_what_they_may() {
    run(|env| async move {
        let cluster = Cluster::single();
        with_users(&cluster).await;
        let ann = EtcdStore::connect(&env, as_user(&cluster, "ann", "ann's password", "/ann/")).await.unwrap();
        let mut watch = ann.watch(KeyRange::prefix(""), WatchOptions::default()).await.unwrap();
        let at = ann.commit(create("a")).await.unwrap();
        assert_eq!(next(&env, &mut watch).await, at);
        let listing = ann.list(&KeyRange::prefix(""), ListOptions::default()).await.unwrap();
        assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(ann.status().await.unwrap().keys, 1);

        let elsewhere = EtcdStore::connect(&env, as_user(&cluster, "ann", "ann's password", "/ben/")).await.unwrap();
        let denied = [
            elsewhere.commit(create("a")).await.map(drop),
            elsewhere.get(&Key::new("a")).await.map(drop),
            elsewhere.list(&KeyRange::prefix(""), ListOptions::default()).await.map(drop),
            elsewhere.watch(KeyRange::prefix(""), WatchOptions::default()).await.map(drop),
        ];
        for answer in denied {
            let error = answer.unwrap_err();
            assert!(matches!(cause(&error), EtcdError::Denied { .. }), "{error:?}");
        }
        for (name, password) in [("ann", "ben's password"), ("ben", "ann's password")] {
            let denied = EtcdStore::connect(&env, as_user(&cluster, name, password, "/ann/")).await;
            assert!(matches!(denied, Err(EtcdError::Denied { .. })), "{denied:?}");
        }
    });
}

#[test]
fn tokens_are_renewed() {
    run(|env| async move {
        let mut cluster = Cluster::single();
        with_users(&cluster).await;
        let ann = EtcdStore::connect(&env, as_user(&cluster, "ann", "ann's password", "/ann/")).await.unwrap();
        let mut watch = ann.watch(KeyRange::prefix(""), WatchOptions::default()).await.unwrap();
        let first = ann.commit(create("a")).await.unwrap();
        assert_eq!(next(&env, &mut watch).await, first);

        // Whoever changes what users may makes all tokens old.
        let root = ConnectOptions::new().with_user("root", "root's password");
        let mut root = Client::connect(cluster.urls(), Some(root)).await.unwrap();
        root.role_grant_permission("ann", below("/more/")).await.unwrap();
        let second = ann.commit(create("b")).await.unwrap();
        assert_eq!(next(&env, &mut watch).await, second);
        let mut late =
            ann.watch(KeyRange::prefix(""), WatchOptions { after: Some(first), bookmarks: false }).await.unwrap();
        assert_eq!(next(&env, &mut late).await, second);

        // A member that starts anew knows no tokens.
        cluster.members[0].restart();
        let entry = ann.get(&Key::new("b")).await.unwrap().unwrap();
        assert_eq!(entry.modified, second);
        let third = ann.commit(create("c")).await.unwrap();
        assert_eq!(next(&env, &mut watch).await, third);
        assert_eq!(next(&env, &mut late).await, third);

        // Who may no longer read is told, also by a watch.
        let mut root =
            Client::connect(cluster.urls(), Some(ConnectOptions::new().with_user("root", "root's password")))
                .await
                .unwrap();
        root.user_revoke_role("ann", "ann").await.unwrap();
        let error = ann.get(&Key::new("a")).await.unwrap_err();
        assert!(matches!(cause(&error), EtcdError::Denied { .. }), "{error:?}");
        cluster.members[0].restart();
        let ended = loop {
            match env.timeout(PATIENCE, watch.next()).await.expect("the watch ends").expect("with an error") {
                Ok(item) => assert!(matches!(item, WatchItem::Bookmark(_)), "{item:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(cause(&ended), EtcdError::Denied { .. }), "{ended:?}");
    });
}

#[test]
fn nobody_there_is_an_error() {
    run(|env| async move {
        let mut cluster = Cluster::single();
        let answered = EtcdStore::connect(&env, config(&cluster, Limits::default())).await.unwrap();
        cluster.members[0].kill();
        let silent = EtcdStore::connect(&env, config(&cluster, Limits::default())).await;
        assert!(matches!(silent, Err(EtcdError::Failed { .. })), "{silent:?}");
        answered.close();
        assert!(matches!(answered.get(&Key::new("/a")).await, Err(StoreError::Closed)));
        assert!(matches!(answered.commit(create("/a")).await, Err(StoreError::Closed)));
    });
}
