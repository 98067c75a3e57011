//! Where etcd is, and who asks.

use std::{fmt, time::Duration};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::{error::EtcdError, limits::Limits};

/// How to reach an etcd cluster.
#[derive(Clone, Debug, Default)]
pub struct EtcdConfig {
    /// Client URLs of the members, `http://` or `https://`; with [`tls`](Self::tls) all of them are `https://`.
    pub endpoints: Vec<String>,
    /// What all keys of the store begin with in etcd. Nobody else may write keys that begin with it.
    pub prefix: String,
    /// Who asks, where etcd wants to know.
    pub credentials: Option<Credentials>,
    /// How etcd proves who it is, and how the client does.
    pub tls: Option<Tls>,
    /// Bounds.
    pub limits: Limits,
}

/// A user of etcd.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Certificates, in PEM.
#[derive(Clone)]
pub struct Tls {
    /// The authorities that the members' certificates come from.
    pub authorities: String,
    /// The name in the members' certificates; the host of the URL when `None`.
    pub server_name: Option<String>,
    /// The client's own certificate and key, where etcd wants one.
    pub identity: Option<TlsIdentity>,
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate, with those between it and the authority.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

impl EtcdConfig {
    /// Whether it can be meant.
    pub(crate) fn check(&self) -> Result<(), EtcdError> {
        let wrong = |what: String| Err(EtcdError::Configuration(what));
        if self.endpoints.is_empty() {
            return wrong("there is no endpoint".to_owned());
        }
        for endpoint in &self.endpoints {
            match (endpoint.split_once("://"), &self.tls) {
                (Some(("http", host)), None) | (Some(("https", host)), Some(_)) if !host.is_empty() => {}
                (Some(("https", _)), None) => {
                    return wrong(format!("{endpoint} needs the authorities of its certificate"));
                }
                (Some(("http", _)), Some(_)) => {
                    return wrong(format!("{endpoint} is not under TLS, which was asked for"));
                }
                _ => return wrong(format!("{endpoint:?} is no URL of http or https")),
            }
        }
        let limits = &self.limits;
        let numbers =
            [limits.value_bytes, limits.key_bytes, limits.batch_operations, limits.request_bytes, limits.answer_bytes];
        let times = [
            limits.answer_time,
            limits.connect_time,
            limits.call_time,
            limits.outage_time,
            limits.keep_alive_interval,
            limits.keep_alive_time,
            limits.bookmark_interval,
        ];
        if numbers.contains(&0) || times.contains(&Duration::ZERO) {
            return wrong("a limit is zero".to_owned());
        }
        Ok(())
    }

    /// The same in the words of the client.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        let limits = &self.limits;
        // A member without a leader says so, and another one is asked. etcd closes connections that are asked whether they are
        // alive while nothing is going on.
        let mut options = ConnectOptions::new()
            .with_connect_timeout(limits.connect_time)
            .with_keep_alive(limits.keep_alive_interval, limits.keep_alive_time)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(Credentials { name, password }) = &self.credentials {
            options = options.with_user(name, password);
        }
        if let Some(tls) = &self.tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.authorities));
            if let Some(name) = &tls.server_name {
                with = with.domain_name(name);
            }
            if let Some(TlsIdentity { certificate, key }) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(with);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoints: &[&str], tls: bool) -> EtcdConfig {
        let tls = tls.then(|| Tls { authorities: String::new(), server_name: None, identity: None });
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        EtcdConfig { endpoints, tls, ..EtcdConfig::default() }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (endpoints, tls) in [
            (&[][..], false),
            (&["127.0.0.1:2379"][..], false),
            (&["http://"][..], false),
            (&["unix:///run/etcd"][..], false),
            (&["https://a:2379"][..], false),
            (&["https://a:2379", "http://b:2379"][..], true),
        ] {
            let refused = config(endpoints, tls).check();
            assert!(matches!(refused, Err(EtcdError::Configuration(_))), "{endpoints:?} with {tls}: {refused:?}");
        }
        assert!(config(&["http://a:1", "http://b:1"], false).check().is_ok());
        assert!(config(&["https://a:1"], true).check().is_ok());
        let mut without_time = config(&["http://a:1"], false);
        without_time.limits.answer_time = Duration::ZERO;
        assert!(without_time.check().is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let identity = Some(TlsIdentity { certificate: "c".to_owned(), key: "hidden".to_owned() });
        let config = EtcdConfig {
            credentials: Some(Credentials { name: "ann".to_owned(), password: "hidden".to_owned() }),
            tls: Some(Tls { authorities: String::new(), server_name: None, identity }),
            ..EtcdConfig::default()
        };
        let shown = format!("{config:?} {:?}", config.tls.as_ref().and_then(|tls| tls.identity.as_ref()));
        assert!(shown.contains("ann") && !shown.contains("hidden"), "{shown}");
    }
}
