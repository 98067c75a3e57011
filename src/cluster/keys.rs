//! What a cluster is known by: its certificate authority, and the key that the tokens of service accounts are signed with.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use orchestrator_apiserver::{
    TokenIssuer,
    http::{CertificateAuthority, TlsError},
};
use orchestrator_core::status::{ApiError, ApiResult};

/// The files of a directory, by the names that `kubeadm` gives them.
const AUTHORITY: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const TOKEN_KEY: &str = "sa.key";

/// What a cluster is known by. Cheap to clone.
///
/// A cluster whose state outlives its process needs the same keys again, or what it gave out before is worth nothing: kubeconfigs,
/// certificates, the tokens in running pods. Several control planes on one store need the same keys, too.
#[derive(Clone)]
pub struct ClusterKeys {
    authority: Arc<CertificateAuthority>,
    token_key: Arc<str>,
}

/// Keys could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Certificates could not be made or read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key for tokens could not be made or read.
    #[error("the key of tokens: {0}")]
    TokenKey(#[from] ApiError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl fmt::Debug for ClusterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKeys").field("authority", &self.authority.certificate_pem()).finish_non_exhaustive()
    }
}

impl ClusterKeys {
    /// New keys.
    pub fn generate() -> Result<Self, KeysError> {
        let token_key = TokenIssuer::generate_key_pem()?.into();
        Ok(Self { authority: Arc::new(CertificateAuthority::generate()?), token_key })
    }

    /// These keys, in PEM: the authority's certificate and key, and a key for tokens (ECDSA on P-256, PKCS #8).
    pub fn from_pem(authority: &str, authority_key: &str, token_key: &str) -> Result<Self, KeysError> {
        TokenIssuer::from_pem(token_key)?;
        let authority = Arc::new(CertificateAuthority::from_pem(authority, authority_key)?);
        Ok(Self { authority, token_key: token_key.into() })
    }

    /// The keys in a directory: `ca.crt`, `ca.key` and `sa.key`. New ones are written there if it does not exist or is empty,
    /// for its owner alone, and all at once: a crash leaves none or all. Of several processes that open it the first one's
    /// hold.
    ///
    /// # Errors
    /// One of the files is missing or cannot be read: keys that are there are never replaced.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, KeysError> {
        let directory = directory.as_ref();
        if is_vacant(directory).map_err(at(directory))? {
            Self::generate()?.write(directory)?;
        }
        let read = |name| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(at(&path))
        };
        Self::from_pem(&read(AUTHORITY)?, &read(AUTHORITY_KEY)?, &read(TOKEN_KEY)?)
    }

    pub(super) fn authority(&self) -> &Arc<CertificateAuthority> {
        &self.authority
    }

    pub(super) fn token_issuer(&self) -> ApiResult<TokenIssuer> {
        TokenIssuer::from_pem(&self.token_key)
    }

    /// Puts a whole directory into the place of an empty one, unless somebody else has done so meanwhile.
    fn write(&self, directory: &Path) -> Result<(), KeysError> {
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(at(parent))?;
        let new = Draft::beside(directory);
        fs::DirBuilder::new().mode(0o700).create(&new.0).map_err(at(&new.0))?;
        let files = [
            (AUTHORITY, self.authority.certificate_pem()),
            (AUTHORITY_KEY, self.authority.key_pem()),
            (TOKEN_KEY, &self.token_key),
        ];
        for (name, text) in files {
            let path = new.0.join(name);
            write_file(&path, text).map_err(at(&path))?;
        }
        match fs::rename(&new.0, directory).and_then(|()| fs::File::open(parent)?.sync_all()) {
            Err(error) if is_vacant(directory).unwrap_or(true) => Err(at(directory)(error)),
            _ => Ok(()),
        }
    }
}

/// A directory that is to become another one, or to go.
struct Draft(PathBuf);

impl Draft {
    fn beside(directory: &Path) -> Self {
        let mut name = directory.as_os_str().to_owned();
        name.push(format!(".{}-{:?}", std::process::id(), std::thread::current().id()));
        Self(name.into())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is not there any more when all went well.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether there is no such directory, or nothing in it.
fn is_vacant(directory: &Path) -> io::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> KeysError {
    let path = path.to_owned();
    |source| KeysError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Draft {
        Draft::beside(&std::env::temp_dir().join("cluster-keys"))
    }

    fn same(one: &ClusterKeys, other: &ClusterKeys) -> bool {
        one.authority.certificate_pem() == other.authority.certificate_pem()
            && one.authority.key_pem() == other.authority.key_pem()
            && one.token_key == other.token_key
    }

    #[test]
    fn keys_are_made_once() {
        let directory = directory();
        let place = directory.0.join("a/b");
        let made = ClusterKeys::open(&place).unwrap();
        assert!(same(&made, &ClusterKeys::open(&place).unwrap()));
        // Somebody who was a moment later keeps what is there.
        ClusterKeys::generate().unwrap().write(&place).unwrap();
        assert!(same(&made, &ClusterKeys::open(&place).unwrap()));
        assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        // What the authority issues still belongs to its certificate.
        made.authority().issue_client("a", &[]).unwrap();
    }

    #[test]
    fn what_is_there_is_never_replaced() {
        let directory = directory();
        let (place, other) = (directory.0.join("a"), directory.0.join("b"));
        ClusterKeys::open(&place).unwrap();
        ClusterKeys::open(&other).unwrap();
        fs::copy(other.join(AUTHORITY_KEY), place.join(AUTHORITY_KEY)).unwrap();
        let error = ClusterKeys::open(&place).unwrap_err();
        assert!(matches!(error, KeysError::Tls(_)), "{error}");
        fs::remove_file(place.join(AUTHORITY)).unwrap();
        let error = ClusterKeys::open(&place).unwrap_err();
        assert!(matches!(&error, KeysError::File { path, .. } if path.ends_with(AUTHORITY)), "{error}");
        fs::write(other.join(TOKEN_KEY), "no key").unwrap();
        assert!(matches!(ClusterKeys::open(&other), Err(KeysError::TokenKey(_))));
    }
}
