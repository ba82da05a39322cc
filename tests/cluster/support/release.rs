//! The chart, installed with Helm, and its Deployment's pods as processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::control_plane::ControlPlane;
use super::process::Process;
use super::tools::Output;
use crate::common::{PATIENCE, Progress, Scim, eventually, eventually_within, free_port, tail};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/rolecall");

/// One release of the chart.
pub(crate) struct Release {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) scim: SocketAddr,
    pub(crate) admin: SocketAddr,
    probe: SocketAddr,
    /// The folder that represents the `PersistentVolumeClaim`; all pods share it.
    pub(crate) volume: PathBuf,
    /// The chart's folder; a test may replace it before an upgrade.
    pub(crate) chart: PathBuf,
    values: Vec<String>,
}

impl Release {
    /// Runs `helm install`, with rolecall enforcing against the emulator and the Secrets of `okta` and `entra` listed.
    /// `more` are additional `--set`s, which take precedence.
    pub(crate) async fn install(
        cluster: &ControlPlane,
        google: &str,
        name: &str,
        namespace: &str,
        more: &[&str],
    ) -> Result<Self, Output> {
        let (scim, admin, probe) = (free_port(), free_port(), free_port());
        let volume = cluster.folder().join(format!("volume-{namespace}-{name}"));
        std::fs::create_dir_all(&volume).expect("a volume");
        let mut values = vec![
            "mode=enforce".to_owned(),
            format!("google.endpoint={google}"),
            "google.credentials=none".to_owned(),
            "driftInterval=1s".to_owned(),
            "listenAddress=127.0.0.1".to_owned(),
            format!("ports.scim={}", scim.port()),
            format!("ports.admin={}", admin.port()),
            format!("ports.probe={}", probe.port()),
            "secrets={okta-scim,entra-scim}".to_owned(),
            "log.format=text".to_owned(),
        ];
        values.extend(more.iter().map(|&value| value.to_owned()));
        let (name, namespace, chart) = (name.to_owned(), namespace.to_owned(), PathBuf::from(CHART));
        let this = Self { name, namespace, scim, admin, probe, volume, chart, values };
        let output = this.helm(cluster, "install", &["--create-namespace"]).await;
        if output.status == 0 { Ok(this) } else { Err(output) }
    }

    /// Runs `helm upgrade` with the same values and more. Running pods are not restarted.
    pub(crate) async fn upgrade(&mut self, cluster: &ControlPlane, more: &[&str]) -> Output {
        self.values.extend(more.iter().map(|&value| value.to_owned()));
        self.helm(cluster, "upgrade", &[]).await
    }

    /// Runs `helm install` with the same values, after [`Self::uninstall`]. Needs a new pod afterwards.
    pub(crate) async fn reinstall(&self, cluster: &ControlPlane) -> Output {
        self.helm(cluster, "install", &[]).await
    }

    pub(crate) async fn uninstall(&self, cluster: &ControlPlane) -> Output {
        cluster.helm(&["uninstall", &self.name, "--namespace", &self.namespace]).await
    }

    /// The file of the store on the volume.
    pub(crate) fn database(&self) -> PathBuf {
        self.volume.join("rolecall.db")
    }

    async fn helm(&self, cluster: &ControlPlane, verb: &str, more: &[&str]) -> Output {
        let chart = self.chart.display().to_string();
        let mut arguments = vec![verb, &self.name, &chart, "--namespace", &self.namespace];
        arguments.extend(more);
        for value in &self.values {
            arguments.extend(["--set", value]);
        }
        cluster.helm(&arguments).await
    }

    /// A pod of the current Deployment, which reaches the API server at `server`; not started yet. The pod `rolecall-0`
    /// listens on the ports of the chart, and each other pod on its own ports.
    pub(crate) async fn pod(&self, cluster: &ControlPlane, name: &str, server: SocketAddr) -> Pod {
        let deployment = format!("{}/{}", self.namespace, self.name);
        let deployment = cluster.admin.get("Deployment", &deployment).await.expect("the Deployment");
        let spec = &deployment["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        assert_eq!(container["command"], serde_json::json!(["/rolecall"]));

        let own = cluster.folder().join(format!("pod-{}-{name}", self.namespace));
        std::fs::create_dir_all(&own).expect("a folder");
        let (scim, admin, probe) = if name.ends_with("-0") {
            (self.scim, self.admin, self.probe)
        } else {
            (free_port(), free_port(), free_port())
        };
        let here = |text: &str| {
            let text = text
                .replace(&format!(":{}", self.scim.port()), &format!(":{}", scim.port()))
                .replace(&format!(":{}", self.admin.port()), &format!(":{}", admin.port()))
                .replace(&format!(":{}", self.probe.port()), &format!(":{}", probe.port()));
            for mount in list(&container["volumeMounts"]) {
                let path = mount["mountPath"].as_str().expect("a path");
                let volume = list(&spec["volumes"]).find(|volume| volume["name"] == mount["name"]).expect("its volume");
                let claimed = volume.get("persistentVolumeClaim").is_some();
                let folder = if claimed { &self.volume } else { &own };
                if let Some(moved) = moved(&text, path, folder) {
                    return moved;
                }
            }
            text
        };
        let arguments = list(&container["args"]).map(|text| here(text.as_str().expect("text"))).collect();
        let mut environment: Vec<(String, String)> = list(&container["env"])
            .map(|variable| {
                let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                    None => here(variable["value"].as_str().unwrap_or_default()),
                    Some("metadata.name") => name.to_owned(),
                    Some("metadata.namespace") => self.namespace.clone(),
                    Some(other) => panic!("fieldRef {other}"),
                };
                (variable["name"].as_str().expect("a name").to_owned(), value)
            })
            .collect();

        let account = spec["serviceAccountName"].as_str().expect("a ServiceAccount");
        let token = cluster.admin.service_account_token(&format!("{}/{account}", self.namespace)).await;
        let token_file = own.join("token");
        std::fs::write(&token_file, token).expect("a token file");
        let credentials = format!("tokenFile: {}", token_file.display());
        let kubeconfig = cluster.kubeconfig(&format!("{}-{name}", self.namespace), server, &credentials);
        environment.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
        Pod {
            name: name.to_owned(),
            scim_url: format!("http://{scim}"),
            admin_url: format!("http://{admin}"),
            user: format!("system:serviceaccount:{}:{account}", self.namespace),
            log: own.join("rolecall.log"),
            arguments,
            environment,
            process: None,
            born: 0,
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// `text` with the path `mount` replaced by `folder`, if it contains that path.
fn moved(text: &str, mount: &str, folder: &Path) -> Option<String> {
    let at = text.find(mount)?;
    let (before, after) = (text.get(..at)?, text.get(at + mount.len()..)?);
    let begins = before.is_empty() || before.ends_with([':', '=', '"']);
    let ends = after.is_empty() || after.starts_with('/');
    (begins && ends).then(|| format!("{before}{}{after}", folder.display()))
}

/// The container of a pod as a process.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) scim_url: String,
    pub(crate) admin_url: String,
    /// Its user name at the API server.
    pub(crate) user: String,
    pub(crate) log: PathBuf,
    /// The container's arguments, adapted to paths and ports of this machine. A test may add to them.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    process: Option<Process>,
    /// Position in the log at which the current run starts.
    born: usize,
}

impl Pod {
    /// Starts the process without waiting. A running one is killed first.
    pub(crate) fn spawn(&mut self) {
        self.kill();
        self.born = self.said().len();
        let program = Path::new(env!("CARGO_BIN_EXE_rolecall"));
        self.process = Some(Process::start(program, &self.arguments, &self.environment, self.log.clone()));
    }

    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Waits for `/readyz`.
    pub(crate) async fn ready(&mut self) {
        self.answers("readyz").await;
    }

    /// Waits for `/livez`, which a frozen or waiting process answers too.
    pub(crate) async fn alive(&mut self) {
        self.answers("livez").await;
    }

    async fn answers(&mut self, what: &str) {
        let (url, name) = (format!("{}/{what}", self.admin_url), self.name.clone());
        eventually(&format!("{name} {what}"), async || {
            if let Some(status) = self.ended() {
                panic!("{name} ended with {status}:\n{}", tail(&self.said()));
            }
            match reqwest::get(&url).await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => {
                    let status = answer.status();
                    Err(format!("{status} {}\n{}", answer.text().await.unwrap_or_default(), tail(&self.said())))
                }
                Err(error) => Err(format!("{error}\n{}", tail(&self.said()))),
            }
        })
        .await;
    }

    /// Waits until the process leads and has read all resources. The Lease of another leader may have to expire first.
    pub(crate) async fn at_work(&mut self) {
        self.says("all resources are read; at work").await;
    }

    /// The progress of this process.
    pub(crate) fn progress(&self) -> Progress {
        Progress { admin_url: self.admin_url.clone(), http: reqwest::Client::new() }
    }

    /// Waits until the current run has logged this.
    pub(crate) async fn says(&mut self, words: &str) {
        let name = self.name.clone();
        eventually_within(Duration::from_mins(1), &format!("{name}: {words}"), async || {
            let said = self.said().split_off(self.born);
            if said.contains(words) { Ok(()) } else { Err(tail(&said)) }
        })
        .await;
    }

    /// The status of one resource on the admin port of this process, or null.
    pub(crate) async fn status(&self, kind: &str, name: &str) -> Value {
        let answer = reqwest::get(format!("{}/status", self.admin_url)).await;
        let listed: Value = match answer {
            Ok(answer) => answer.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        };
        let (namespace, name) = name.split_once('/').map_or((None, name), |(ns, name)| (Some(ns), name));
        let found = list(&listed["items"]).find(|item| {
            let metadata = &item["metadata"];
            item["kind"] == kind && metadata["name"] == name && metadata["namespace"].as_str() == namespace
        });
        found.map_or(Value::Null, |item| item["status"].clone())
    }

    /// Waits until `check` accepts the status of one resource on the admin port.
    pub(crate) async fn says_of(&self, kind: &str, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually_within(Duration::from_mins(1), &format!("{}: {kind} {name}: {what}", self.name), async || {
            let status = self.status(kind, name).await;
            if check(&status) { Ok(status) } else { Err(format!("{status:#}; log:\n{}", tail(&self.said()))) }
        })
        .await
    }

    /// The sum of the samples of a metric.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.admin_url)).await.expect("metrics").text().await;
        let text = text.expect("metrics");
        let samples =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        samples.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")).sum()
    }

    /// Waits until the process has ended; returns its exit status.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let status = eventually("an end", async || self.ended().ok_or_else(|| tail(&self.said()))).await;
        self.process = None;
        status.code()
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Sends a signal by its name without `SIG`: `TERM`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.as_ref().expect("a running pod").signal(name);
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut().expect("a started pod").ended()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let pid = self.process.as_ref().expect("a running pod").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGTERM and waits for a clean end.
    pub(crate) async fn shutdown(&mut self) {
        self.signal("TERM");
        let status = eventually("an end after SIGTERM", async || self.ended().ok_or_else(|| tail(&self.said()))).await;
        assert!(status.success(), "a clean end, not {status}");
        self.process = None;
    }

    /// The log of all runs together.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs `kubectl exec POD -- /rolecall ARGUMENTS`: another command in the environment of the container.
    pub(crate) async fn exec(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rolecall"));
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        super::tools::run(command, "").await
    }

    /// The IdP of a provider, which calls this pod.
    pub(crate) fn scim(&self, provider: &str, token: &str) -> Scim {
        Scim {
            base: format!("{}/idp/{provider}/scim/v2", self.scim_url),
            token: token.to_owned(),
            http: reqwest::Client::builder().timeout(PATIENCE).build().expect("a client"),
        }
    }
}
