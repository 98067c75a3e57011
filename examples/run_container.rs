//! Runs a command in a container and prints what it says; exits with its exit code.
//!
//! ```text
//! cargo run --example run_container                                  a greeting, from an image packed on the spot
//! cargo run --example run_container -- ls -l /                       any program of this machine, alone with its libraries
//! cargo run --example run_container -- --image nginx nginx -v        an image of a registry
//! cargo run --example run_container -- --image app.tar               a file of `docker save`, or a directory in the OCI layout
//! ```

use std::{
    collections::BTreeMap,
    error::Error,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use futures::StreamExt;
use orchestrator::{
    env::Env,
    images::{ImageSource, PackedImage},
    runtime::{
        ContainerConfig, ContainerKey, ContainerRuntime, DnsConfig, LogOptions, LogStream, NamespaceOptions,
        PullRequest, Resources, SandboxConfig, SandboxKey, SecurityContext,
    },
    runtime_docker::DockerRuntime,
    runtime_youki::{self, YoukiRuntime},
};

type Failure = Box<dyn Error>;

/// Where programs are looked for.
const DIRECTORIES: [&str; 6] = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// How an image is called that comes from this machine.
const LOCAL: &str = "local:1";

/// Runs a command in a container.
#[derive(Parser)]
struct Options {
    /// What makes the container: youki or docker; youki where the machine can, or else docker
    #[arg(long)]
    runtime: Option<String>,
    /// An image's name, archive or directory; one packed of the command's program unless given
    #[arg(long)]
    image: Option<String>,
    /// The command, instead of the image's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> Result<ExitCode, Failure> {
    // The helper processes of youki's containers are this program, started anew.
    runtime_youki::init();
    let options = Options::parse();
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    executor.block_on(run(options))
}

async fn run(options: Options) -> Result<ExitCode, Failure> {
    let env = Env::real();
    let (image, source, command) = image(options.image, options.command)?;
    let directory = PathBuf::from(format!("/var/lib/orchestrator-run-{}", std::process::id()));
    let cluster = format!("run-{}", std::process::id());
    let wants_youki = match options.runtime.as_deref() {
        Some("youki") => true,
        Some("docker") => false,
        Some(other) => return Err(format!("no runtime {other}; there are youki and docker").into()),
        None => YoukiRuntime::check_machine().is_ok(),
    };
    let code = if wants_youki {
        let builder = YoukiRuntime::builder(&directory).cluster(cluster);
        let builder = source.into_iter().fold(builder, |builder, source| builder.source(&image, source));
        let runtime = Arc::new(builder.build(env)?);
        let code = in_container(&*runtime, &image, command).await;
        runtime.remove_network().await?;
        code
    } else {
        let builder = DockerRuntime::builder(&directory).cluster(cluster);
        let builder = source.into_iter().fold(builder, |builder, source| builder.image(&image, source));
        let runtime = builder.build(env)?;
        let code = in_container(&runtime, &image, command).await;
        runtime.remove_leftovers().await?;
        code
    };
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(ExitCode::from(u8::try_from(code?).unwrap_or(1)))
}

/// The image's name, where it comes from if not from a registry, and the command.
fn image(image: Option<String>, command: Vec<String>) -> Result<(String, Option<ImageSource>, Vec<String>), Failure> {
    match image {
        Some(path) if Path::new(&path).is_dir() => {
            Ok((LOCAL.to_owned(), Some(ImageSource::Layout(path.into())), command))
        }
        Some(path) if Path::new(&path).is_file() => {
            Ok((LOCAL.to_owned(), Some(ImageSource::Archive(path.into())), command))
        }
        Some(name) => Ok((name, None, command)),
        None => {
            let greeting = ["sh", "-c", "echo \"hello from $(id -u) in a container of $(ls /bin | wc -w) programs\""];
            let command = if command.is_empty() { greeting.map(ToOwned::to_owned).to_vec() } else { command };
            let program = find(&command[0])?;
            let mut image = PackedImage::new().executable(&program);
            if program.ends_with("sh") {
                for name in ["id", "ls", "wc"] {
                    image = image.executable_at(find(name)?, Path::new("/bin").join(name));
                }
            }
            let command = [&[program.to_string_lossy().into_owned()], &command[1..]].concat();
            Ok((LOCAL.to_owned(), Some(image.into()), command))
        }
    }
}

fn find(program: &str) -> Result<PathBuf, Failure> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let mut places = DIRECTORIES.iter().map(|directory| Path::new(directory).join(program));
    places.find(|path| path.is_file()).ok_or_else(|| format!("there is no program {program} on this machine").into())
}

/// Runs the command to its end, and returns its exit code.
async fn in_container(runtime: &dyn ContainerRuntime, image: &str, command: Vec<String>) -> Result<i32, Failure> {
    runtime.pull_image(&PullRequest { image: image.to_owned(), credentials: Vec::new() }).await?;
    let pod = runtime.run_sandbox(&sandbox()).await?;
    let outcome = async {
        let container = runtime.create_container(&pod.id, &container(image, command)).await?;
        runtime.start_container(&container).await?;
        // A log that is followed ends with its container.
        let mut lines = runtime.logs(&container, LogOptions { follow: true, ..LogOptions::default() }).await?;
        while let Some(line) = lines.next().await {
            let line = line?;
            let mut text = line.content.to_vec();
            text.extend((!line.partial).then_some(b'\n'));
            match line.stream {
                LogStream::Stdout => std::io::stdout().write_all(&text)?,
                LogStream::Stderr => std::io::stderr().write_all(&text)?,
            }
        }
        // It has ended, or is about to be seen to have.
        runtime.stop_container(&container, Duration::from_secs(10)).await?;
        let state = runtime.inspect_container(&container).await?.state;
        state.exit_code().ok_or_else(|| Failure::from("the container has not ended"))
    }
    .await;
    runtime.stop_sandbox(&pod.id).await?;
    runtime.remove_sandbox(&pod.id).await?;
    outcome
}

fn sandbox() -> SandboxConfig {
    SandboxConfig {
        key: SandboxKey { pod_uid: "run".to_owned(), attempt: 0 },
        namespace: "default".to_owned(),
        name: "run".to_owned(),
        hostname: "run".to_owned(),
        dns: DnsConfig::default(),
        namespaces: NamespaceOptions::default(),
        resources: Resources::default(),
        sysctls: BTreeMap::new(),
        labels: Arc::default(),
        annotations: Arc::default(),
    }
}

fn container(image: &str, command: Vec<String>) -> ContainerConfig {
    ContainerConfig {
        key: ContainerKey { name: "main".to_owned(), attempt: 0 },
        image: image.to_owned(),
        command,
        args: Vec::new(),
        working_directory: None,
        environment: Vec::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        security: SecurityContext::default(),
        tty: false,
        stdin: false,
        stdin_once: false,
        stop_signal: None,
        labels: Arc::default(),
        annotations: Arc::default(),
    }
}
