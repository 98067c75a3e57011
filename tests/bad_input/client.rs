//! A client that sends whatever it is told to.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::TOKEN;

/// Makes connections to one server, whose authority it trusts.
#[derive(Clone)]
pub(crate) struct Https {
    pub(crate) address: SocketAddr,
    connector: TlsConnector,
}

/// The reason of an answer that is no `Status`.
pub(crate) const NO_STATUS: &str = "no Status";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

impl Answer {
    /// Code and reason, of a refusal that is a `Status` and says the same code inside. Places that are none of the API's
    /// have no `Status`.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        if self.code == 404 && self.body.is_null() {
            return (self.code, NO_STATUS);
        }
        assert_eq!(self.body["kind"], "Status", "{self:?}");
        assert_eq!(self.body["status"], "Failure", "{self:?}");
        assert_eq!(self.body["code"], self.code, "{self:?}");
        (self.code, self.body["reason"].as_str().unwrap_or_default())
    }
}

impl Https {
    pub(crate) async fn new(address: SocketAddr, kubeconfig: &str) -> Self {
        let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let mut roots = RootCertStore::empty();
        for certificate in config.root_cert.unwrap() {
            roots.add(CertificateDer::from(certificate)).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Self { address, connector: TlsConnector::from(Arc::new(config)) }
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, "", Bytes::new())).await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        self.send(self.request(method, path, kind, body.into())).await
    }

    /// A request of somebody who is known.
    pub(crate) fn request(&self, method: Method, path: &str, kind: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        request.body(Full::new(body)).unwrap()
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let answer = async move {
            let response = sender.send_request(request).await.unwrap();
            let code = response.status().as_u16();
            let warnings = response.headers().get_all(header::WARNING).iter();
            let warnings = warnings.map(|warning| warning.to_str().unwrap().to_owned()).collect();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Answer { code, warnings, body }
        };
        // The server may close the connection before it has read everything.
        let (answer, _) = futures::join!(answer, connection);
        answer
    }
}
