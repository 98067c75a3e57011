//! Which registries there are: mirrors, how they are reached, and who asks.

use std::{collections::BTreeMap, path::Path};

use orchestrator_core::runtime::RegistryCredentials;

use crate::{ImageError, files, limits::CREDENTIALS_BYTES};

/// Settings of all registries; by default each is reached over TLS, without a mirror, by the authorities that the machine
/// trusts.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    mirrors: BTreeMap<String, Vec<String>>,
    plain: Vec<String>,
    authorities: Vec<Vec<u8>>,
    credentials: Vec<RegistryCredentials>,
}

impl Registries {
    /// Registries with nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks another host first for the images of a registry; several are asked in order, the registry itself last.
    #[must_use]
    pub fn mirror(mut self, registry: impl Into<String>, host: impl Into<String>) -> Self {
        self.mirrors.entry(registry.into()).or_default().push(host.into());
        self
    }

    /// Reaches a host (with its port, if it has one) without TLS. Addresses of this machine's own loopback are reached so anyway,
    /// as other runtimes do.
    #[must_use]
    pub fn plain(mut self, host: impl Into<String>) -> Self {
        self.plain.push(host.into());
        self
    }

    /// Trusts an authority's certificate, in PEM, besides those that the machine trusts.
    #[must_use]
    pub fn authority(mut self, certificate: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(certificate.into());
        self
    }

    /// Uses these credentials where a pull brings none that fit.
    #[must_use]
    pub fn credentials(mut self, credentials: impl IntoIterator<Item = RegistryCredentials>) -> Self {
        self.credentials.extend(credentials);
        self
    }

    /// The hosts to ask for a registry's images, in order.
    pub(crate) fn hosts<'a>(&'a self, registry: &'a str) -> impl Iterator<Item = &'a str> {
        let mirrors = self.mirrors.get(registry).into_iter().flatten().map(String::as_str);
        // The registry's name is not that of the host that serves it.
        let own = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        mirrors.chain([own])
    }

    pub(crate) fn is_plain(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_loopback = name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|own| own.is_loopback());
        is_loopback || self.plain.iter().any(|plain| plain == host)
    }

    pub(crate) fn authorities(&self) -> &[Vec<u8>] {
        &self.authorities
    }

    /// The credentials for a host that serves a registry's repository, the most special first; the pull's own before ours.
    /// Without any that fit, nothing is said.
    pub(crate) fn attempts<'a>(
        &'a self,
        of_pull: &'a [RegistryCredentials],
        host: &str,
        repository: &str,
    ) -> Vec<Option<&'a RegistryCredentials>> {
        let fitting =
            fitting(of_pull, host, repository).into_iter().chain(fitting(&self.credentials, host, repository));
        let mut found: Vec<_> = fitting.map(Some).collect();
        if found.is_empty() {
            found.push(None);
        }
        found
    }
}

/// Reads the credentials of a Docker configuration file, such as `~/.docker/config.json`.
pub fn docker_credentials(path: &Path) -> Result<Vec<RegistryCredentials>, ImageError> {
    let text = files::read(path, CREDENTIALS_BYTES).map_err(|error| ImageError::io(path, error))?;
    let text = text.ok_or_else(|| ImageError::Missing(format!("{}: no such file", path.display())))?;
    let invalid = |error| ImageError::Invalid(format!("{}: {error}", path.display()));
    RegistryCredentials::read_config(&text).map_err(invalid)
}

/// The credentials that fit a repository of a host, the most special first.
pub fn fitting<'a>(
    credentials: &'a [RegistryCredentials],
    host: &str,
    repository: &str,
) -> Vec<&'a RegistryCredentials> {
    let ranked = credentials.iter().filter_map(|one| one.fit(host, repository).map(|rank| (rank, one)));
    let mut ranked: Vec<(usize, &RegistryCredentials)> = ranked.collect();
    ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    ranked.into_iter().map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_special_comes_first() {
        let named = |registry: &str| RegistryCredentials {
            registry: registry.to_owned(),
            username: registry.to_owned(),
            password: String::new(),
        };
        let registries = Registries::new().credentials([named("h.io")]);
        let of_pull = [named("h.io"), named("h.io/team"), named("other.io")];
        let found = registries.attempts(&of_pull, "h.io", "team/app");
        let names: Vec<&str> = found.iter().flatten().map(|one| one.username.as_str()).collect();
        assert_eq!(names, ["h.io/team", "h.io", "h.io"]);
        assert_eq!(registries.attempts(&[], "else.io", "a"), [None]);
    }
}
