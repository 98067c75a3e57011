//! What a certificate is asked for, and whether a signer of Kubernetes' own may give it.
//!
//! Upstream: <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem,
    prelude::FromDer,
};

/// For clients of the API server that are kubelets.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// What stands in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// As it came, without its wrapping.
    pub der: Vec<u8>,
    pub common_name: String,
    organizations: Vec<String>,
    dns_names: usize,
    addresses: usize,
    emails: usize,
    uris: usize,
}

/// Reads a request; `None` when it is none.
pub(super) fn read(spec: &CertificateSigningRequestSpec) -> Option<Asked> {
    let (_, block) = pem::parse_x509_pem(&spec.request.0).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let mut asked = Asked {
        common_name: subject.iter_common_name().filter_map(|it| it.as_str().ok()).last().unwrap_or_default().to_owned(),
        organizations: subject.iter_organization().filter_map(|it| it.as_str().ok()).map(str::to_owned).collect(),
        ..Default::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(_) => asked.dns_names += 1,
                GeneralName::IPAddress(_) => asked.addresses += 1,
                GeneralName::RFC822Name(_) => asked.emails += 1,
                GeneralName::URI(_) => asked.uris += 1,
                _ => {}
            }
        }
    }
    asked.der = block.contents;
    Some(asked)
}

/// Whether a signer gives what is asked for; `None` when it is none of the cluster's.
pub(super) fn check(spec: &CertificateSigningRequestSpec, asked: &Asked) -> Option<Result<(), String>> {
    let usages: BTreeSet<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    Some(match &*spec.signer_name {
        KUBELET_CLIENT => of_kubelet_client(asked, &usages),
        KUBELET_SERVING => of_kubelet_server(asked, &usages),
        CLIENT => of_client(spec.usages.iter().flatten()),
        LEGACY => Ok(()),
        _ => return None,
    })
}

/// Whether a kubelet asks for a certificate to speak to the API server.
pub(super) fn is_kubelet_client(request: &CertificateSigningRequest, asked: &Asked) -> bool {
    request.spec.signer_name == KUBELET_CLIENT && check(&request.spec, asked) == Some(Ok(()))
}

fn of_kubelet_client(asked: &Asked, usages: &BTreeSet<&str>) -> Result<(), String> {
    of_node(asked)?;
    for (count, kind) in
        [(asked.dns_names, "DNS"), (asked.emails, "Email"), (asked.addresses, "IP"), (asked.uris, "URI")]
    {
        not_allowed(count, kind)?;
    }
    named_as_node(asked)?;
    of_usages(usages, "client auth")
}

fn of_kubelet_server(asked: &Asked, usages: &BTreeSet<&str>) -> Result<(), String> {
    of_node(asked)?;
    if asked.dns_names == 0 && asked.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    not_allowed(asked.emails, "Email")?;
    not_allowed(asked.uris, "URI")?;
    of_usages(usages, "server auth")?;
    named_as_node(asked)
}

fn of_node(asked: &Asked) -> Result<(), String> {
    let expected = asked.organizations == ["system:nodes"];
    expected.then_some(()).ok_or_else(|| "subject organization is not system:nodes".to_owned())
}

fn named_as_node(asked: &Asked) -> Result<(), String> {
    let expected = asked.common_name.starts_with("system:node:");
    expected.then_some(()).ok_or_else(|| "subject common name does not begin with system:node:".to_owned())
}

fn not_allowed(count: usize, kind: &str) -> Result<(), String> {
    if count == 0 { Ok(()) } else { Err(format!("{kind} subjectAltNames are not allowed")) }
}

/// Keys other than RSA encipher none.
fn of_usages(usages: &BTreeSet<&str>, purpose: &str) -> Result<(), String> {
    let without = BTreeSet::from([purpose, "digital signature"]);
    let with: BTreeSet<&str> = without.iter().copied().chain(["key encipherment"]).collect();
    if *usages == with || *usages == without {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", with.into_iter().collect::<Vec<_>>().join(" ")))
}

fn of_client<'a>(usages: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut authenticates = false;
    for usage in usages {
        match usage.as_str() {
            "digital signature" | "key encipherment" => {}
            "client auth" => authenticates = true,
            other => return Err(format!("invalid usage for client certificate: {other}")),
        }
    }
    authenticates.then_some(()).ok_or_else(|| "missing required usage for client certificate: client auth".to_owned())
}

#[cfg(test)]
pub(super) mod fixtures {
    use k8s_openapi::ByteString;

    use super::*;

    /// Asks for `CN=system:node:n1, O=system:nodes`; a request that `openssl req` made.
    pub(in crate::certificates) const NODE_REQUEST: &str = include_str!("node.csr");

    pub(in crate::certificates) fn of_node(signer: &str, usages: &[&str]) -> CertificateSigningRequest {
        let mut request = CertificateSigningRequest::default();
        request.metadata.name = Some("r".to_owned());
        request.spec.request = ByteString(NODE_REQUEST.into());
        request.spec.signer_name = signer.to_owned();
        request.spec.usages = Some(usages.iter().map(|usage| (*usage).to_owned()).collect());
        request
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> Asked {
        Asked {
            common_name: "system:node:n1".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..Default::default()
        }
    }

    fn spec(signer: &str, usages: &[&str]) -> CertificateSigningRequestSpec {
        fixtures::of_node(signer, usages).spec
    }

    const CLIENT_USAGES: [&str; 2] = ["digital signature", "client auth"];

    #[test]
    fn requests_are_read() {
        let asked = read(&spec(KUBELET_CLIENT, &CLIENT_USAGES)).unwrap();
        assert_eq!(Asked { der: Vec::new(), ..asked.clone() }, node());
        assert!(!asked.der.is_empty());
        let mut broken = spec(KUBELET_CLIENT, &[]);
        broken.request.0.truncate(100);
        assert_eq!(read(&broken), None);
    }

    #[test]
    fn each_signer_has_its_rules() {
        let serving = ["digital signature", "key encipherment", "server auth"];
        let with_address = Asked { addresses: 1, ..node() };
        let with_name = Asked { dns_names: 1, ..node() };
        let stranger = Asked { organizations: vec!["system:masters".to_owned()], ..node() };
        let unnamed = Asked { common_name: "n1".to_owned(), ..node() };
        for (signer, usages, asked, expected) in [
            (KUBELET_CLIENT, &CLIENT_USAGES[..], node(), Some(Ok(()))),
            (KUBELET_CLIENT, &CLIENT_USAGES, stranger, Some(Err("subject organization is not system:nodes"))),
            (KUBELET_CLIENT, &CLIENT_USAGES, with_name, Some(Err("DNS subjectAltNames are not allowed"))),
            (
                KUBELET_CLIENT,
                &CLIENT_USAGES,
                unnamed,
                Some(Err("subject common name does not begin with system:node:")),
            ),
            (
                KUBELET_CLIENT,
                &serving,
                node(),
                Some(Err("usages did not match [client auth digital signature key encipherment]")),
            ),
            (KUBELET_SERVING, &serving, with_address, Some(Ok(()))),
            (KUBELET_SERVING, &serving, node(), Some(Err("DNS or IP subjectAltName is required"))),
            (CLIENT, &CLIENT_USAGES, Asked::default(), Some(Ok(()))),
            (CLIENT, &serving, Asked::default(), Some(Err("invalid usage for client certificate: server auth"))),
            (CLIENT, &[], Asked::default(), Some(Err("missing required usage for client certificate: client auth"))),
            (LEGACY, &["any"], Asked::default(), Some(Ok(()))),
            ("example.com/mine", &["any"], node(), None),
        ] {
            let expected = expected.map(|it: Result<(), &str>| it.map_err(str::to_owned));
            assert_eq!(check(&spec(signer, usages), &asked), expected, "{signer} {usages:?} {asked:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut spec = spec(KUBELET_CLIENT, &[]);
            spec.request.0 = bytes;
            prop_assert_eq!(read(&spec), None);
        }
    }
}
