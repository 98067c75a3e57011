//! Container images: packed, read and pulled, kept by their content and unpacked into shared layers.
//!
//! Start at [`ImageStore`], which a runtime without an engine of its own keeps its images in:
//!
//! ```no_run
//! use orchestrator_core::env::Env;
//! use orchestrator_images::{ImageStore, PackedImage};
//!
//! # async fn example() -> Result<(), orchestrator_images::ImageError> {
//! let store = ImageStore::builder("/var/lib/example/images")
//!     .source("shell", PackedImage::new().executable("/bin/sh").args(["/bin/sh"]))
//!     .open(Env::real())
//!     .await?;
//! let reference = "shell".parse().unwrap();
//! store.pull(&reference, &[]).await?;
//! let held = store.hold(&reference, "container-1").await?;
//! // Stack `held.layers` with overlayfs; then:
//! store.release("container-1").await
//! # }
//! ```
//!
//! ```text
//! source.rs       where an image comes from when no registry has it
//!   pack.rs         executables with their shared libraries (libraries.rs)
//!   stored.rs       archives and OCI layouts
//! registries.rs   where registries are, and who asks
//!   http/           how they are asked
//! manifest.rs     what an image's documents say
//! unpack/         from a stranger's archive to a directory
//! store/          what is on the disk
//! images.rs       the store itself
//! ```

mod error;
mod files;
mod http;
mod images;
mod libraries;
mod limits;
mod manifest;
mod pack;
mod parts;
mod pull;
mod registries;
mod source;
mod store;
mod stored;
mod unpack;

pub use error::ImageError;
pub use images::{ImageStore, ImageStoreBuilder, PullProgress};
pub use manifest::ImageConfiguration;
pub use parts::{Layer, Parts, nameless_file};
pub use registries::{Registries, docker_credentials, fitting};
pub use source::{ImageSource, PackedImage};
pub use store::HeldImage;
