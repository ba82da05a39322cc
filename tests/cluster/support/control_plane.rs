//! etcd, kube-apiserver and kube-controller-manager on loopback, in a temporary folder.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::process::Command;

use super::audit::{self, Call};
use super::kubernetes::Kubernetes;
use super::process::Process;
use super::tools::{Output, run, tool};
use crate::common::{eventually_within, free_port, tail};

/// Timeout of starting a control plane, with two of them on a busy machine.
const START: Duration = Duration::from_mins(3);
/// Number of attempts to start on other ports when another program took one.
const ATTEMPTS: u32 = 5;
/// Token of `system:masters`. It gives access only to a control plane on loopback that lives as long as a test.
const ADMIN: &str = "admin-of-the-tests";

/// A running control plane. Dropping it kills all of its processes and removes its folder.
pub(crate) struct ControlPlane {
    /// The administrator.
    pub(crate) admin: Kubernetes,
    pub(crate) address: SocketAddr,
    apiserver: Process,
    etcd: Process,
    /// None until the API server is ready.
    controllers: Option<Process>,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl ControlPlane {
    /// Starts a control plane for one test.
    pub(crate) async fn start() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(keep_connections: bool) -> Self {
        Self::start_on(keep_connections, || [free_port(), free_port(), free_port()]).await
    }

    /// Starts on the ports that `ports` returns. When another program took one meanwhile, `ports` is called again.
    pub(crate) async fn start_on(keep_connections: bool, mut ports: impl FnMut() -> [SocketAddr; 3]) -> Self {
        for _ in 0..ATTEMPTS {
            match Self::attempt(keep_connections, ports()).await {
                Ok(this) => return this,
                Err(PortTaken(log)) => println!("a port of the control plane was taken; trying others\n{log}"),
            }
        }
        panic!("the control plane found no free ports in {ATTEMPTS} attempts");
    }

    async fn attempt(keep_connections: bool, [client, peer, address]: [SocketAddr; 3]) -> Result<Self, PortTaken> {
        let begun = Instant::now();
        let folder = tempfile::Builder::new().prefix("rolecall-cluster-").tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let shown = |name: &str| at(name).display().to_string();
        std::fs::create_dir(at("home")).expect("a home folder");
        std::fs::write(at("tokens.csv"), format!("{ADMIN},admin,admin,\"system:masters\"\n")).expect("a token file");
        std::fs::write(
            at("audit.yaml"),
            r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#,
        )
        .expect("an audit policy");
        service_account_keys(&at("sa.key"), &at("sa.pub"));

        let mut etcd = Process::start(
            &tool("etcd"),
            &[
                format!("--data-dir={}", shown("etcd")),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
                format!("--listen-client-urls=http://{client}"),
                format!("--advertise-client-urls=http://{client}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster=default=http://{peer}"),
            ],
            &[],
            at("etcd.log"),
        );
        let arguments = vec![
            format!("--etcd-servers=http://{client}"),
            format!("--secure-port={}", address.port()),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--cert-dir={}", shown("certs")),
            format!("--token-auth-file={}", shown("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", shown("sa.key")),
            format!("--service-account-key-file={}", shown("sa.pub")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            format!("--audit-policy-file={}", shown("audit.yaml")),
            format!("--audit-log-path={}", shown("audit.log")),
            "--audit-log-maxsize=2000".to_owned(),
            "--profiling=false".to_owned(),
        ];
        let mut apiserver = Process::start(&tool("kube-apiserver"), &arguments, &[], at("kube-apiserver.log"));
        let certificate = at("certs/apiserver.crt");
        let pem = eventually_within(START, "the certificate of the API server", async || {
            if let Some(taken) = taken([&mut etcd, &mut apiserver]) {
                return Ok(Err(taken));
            }
            let pem = std::fs::read(&certificate).map_err(|error| error.to_string())?;
            // The file is written at once, but may be read before it is complete.
            if pem.ends_with(b"-----END CERTIFICATE-----\n") { Ok(Ok(pem)) } else { Err("not whole yet".to_owned()) }
        })
        .await?;
        let admin = Kubernetes {
            base: format!("https://{address}"),
            token: ADMIN.to_owned(),
            http: client_that_trusts(&pem, keep_connections),
            impersonate: None,
        };
        write_kubeconfig(&at("admin.kubeconfig"), &certificate, address, &format!("token: {ADMIN}"));
        let mut this = Self { admin, address, apiserver, etcd, controllers: None, arguments, folder };
        this.until_ready().await?;
        // It exits when the API server is not healthy within ten seconds, which can happen on a busy machine.
        this.controllers = Some(this.start_controllers());
        println!("control plane ready in {:.1} s", begun.elapsed().as_secs_f64());
        Ok(this)
    }

    fn start_controllers(&self) -> Process {
        let at = |name: &str| self.folder.path().join(name);
        Process::start(
            &tool("kube-controller-manager"),
            &[
                format!("--kubeconfig={}", at("admin.kubeconfig").display()),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
                "--use-service-account-credentials=false".to_owned(),
                // The controllers that the tests need: deletion, ServiceAccounts, the aggregated roles.
                "--controllers=namespace-controller,garbage-collector-controller,serviceaccount-controller,\
                 clusterrole-aggregation-controller"
                    .to_owned(),
                // Makes a kind from a new CRD known to deletion soon.
                "--concurrent-gc-syncs=5".to_owned(),
            ],
            &[],
            at("kube-controller-manager.log"),
        )
    }

    /// The control plane shared by all tests that leave nothing behind: it ends with the last of those that run.
    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Weak<ControlPlane>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start_with(false).await);
        started.install_crds().await;
        *shared = Arc::downgrade(&started);
        started
    }

    async fn until_ready(&mut self) -> Result<(), PortTaken> {
        let admin = self.admin.clone();
        eventually_within(START, "the API server is ready", async || {
            if let Some(taken) = taken([&mut self.etcd, &mut self.apiserver].into_iter().chain(&mut self.controllers)) {
                return Ok(Err(taken));
            }
            let ready = admin.call(reqwest::Method::GET, "/readyz", "", String::new()).await;
            ready.map(|_| Ok(())).map_err(|refused| format!("{refused}\n{}", tail(&self.apiserver.said())))
        })
        .await
    }

    /// Applies the files of `crds/` and waits until they are served.
    pub(crate) async fn install_crds(&self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        for entry in std::fs::read_dir(folder).expect("crds/") {
            let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a CRD");
            self.admin.apply(&text).await;
        }
        self.crds_established().await;
    }

    /// Waits until the three kinds are served.
    pub(crate) async fn crds_established(&self) {
        for plural in ["identityproviders", "cloudruntargets", "rolemappings"] {
            let name = format!("{plural}.rolecall.dev");
            eventually_within(START, &format!("{name} established"), async || {
                let crd = self.admin.find("CustomResourceDefinition", &name).await;
                if !crate::common::has(&crd["status"], "Established", "True", "") {
                    return Err(crd["status"].to_string());
                }
                // A CRD is reported as established a moment before it is served.
                let path = format!("/apis/rolecall.dev/v1alpha1/{plural}?limit=1");
                let served = self.admin.call(reqwest::Method::GET, &path, "", String::new()).await;
                served.map(|_| ()).map_err(|refused| refused.to_string())
            })
            .await;
        }
    }

    /// Sends SIGKILL to the API server. etcd and the data stay.
    pub(crate) fn kill_apiserver(&mut self) {
        self.apiserver.kill();
    }

    /// Starts the API server again, on the same port and data, and waits until it is ready.
    pub(crate) async fn start_apiserver(&mut self) {
        let log = self.apiserver.log.clone();
        // A process that uses this port as a client meanwhile releases it soon.
        for _ in 0..ATTEMPTS {
            self.apiserver.kill();
            self.apiserver = Process::start(&tool("kube-apiserver"), &self.arguments, &[], log.clone());
            match self.until_ready().await {
                Ok(()) => return,
                Err(PortTaken(log)) => println!("the port of the API server is taken; trying again\n{log}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("the port of the API server stays taken");
    }

    /// Compacts the store: no watch can be resumed from a version before now. Returns the revision.
    pub(crate) async fn compact(&self) -> u64 {
        let etcd = self.arguments.iter().find_map(|argument| argument.strip_prefix("--etcd-servers=")).expect("etcd");
        let ask = async |what: &str, body: Value| -> Value {
            // Any client works; this one trusts more than necessary.
            let request = self.admin.http.post(format!("{etcd}/v3/kv/{what}")).body(body.to_string());
            let answer = request.send().await.expect("etcd").error_for_status().expect("an answer of etcd");
            answer.json().await.expect("JSON")
        };
        let revision = ask("range", json!({"key": "AA=="})).await["header"]["revision"].clone();
        ask("compaction", json!({"revision": revision, "physical": true})).await;
        revision.as_str().and_then(|text| text.parse().ok()).expect("a revision")
    }

    /// Sends SIGSTOP to the API server: it keeps its connections and answers nothing, until [`Self::resume_apiserver`].
    pub(crate) fn stop_apiserver(&self) {
        self.apiserver.signal("STOP");
    }

    pub(crate) fn resume_apiserver(&self) {
        self.apiserver.signal("CONT");
    }

    /// A folder that is removed with the control plane.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a kubeconfig with `credentials`, a line such as `token: X`, and returns its path.
    pub(crate) fn kubeconfig(&self, name: &str, server: SocketAddr, credentials: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        write_kubeconfig(&path, &self.folder.path().join("certs/apiserver.crt"), server, credentials);
        path
    }

    /// Runs `kubectl ARGUMENTS` as the administrator.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_with(arguments, "").await
    }

    /// Like [`Self::kubectl`], with a text on standard input, for `-f -`.
    pub(crate) async fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> Output {
        run(self.command("kubectl", arguments), stdin).await
    }

    /// Runs `helm ARGUMENTS` as the administrator.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> Output {
        run(self.command("helm", arguments), "").await
    }

    /// Runs `sh -c SCRIPT` as an administrator with kubectl, in a folder that is removed with the control plane.
    pub(crate) async fn shell(&self, script: &str) -> Output {
        let tools = tool("kubectl").parent().expect("a folder").display().to_string();
        let path = format!("{tools}:{}", std::env::var_os("PATH").unwrap_or_default().display());
        let mut command = Command::new("sh");
        command.args(["-euc", script]).env_clear().env("PATH", path).current_dir(self.folder.path().join("home"));
        command.env("HOME", self.folder.path().join("home"));
        command.env("KUBECONFIG", self.folder.path().join("admin.kubeconfig"));
        run(command, "").await
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool(name));
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path().join("home"));
        command.env("KUBECONFIG", self.folder.path().join("admin.kubeconfig"));
        command
    }

    /// The current position in the audit log, for [`Self::calls_since`].
    pub(crate) fn now(&self) -> usize {
        let length = std::fs::metadata(self.folder.path().join("audit.log")).map_or(0, |file| file.len());
        usize::try_from(length).expect("a log that fits")
    }

    /// The calls that the API server has answered since that position.
    pub(crate) fn calls_since(&self, then: usize) -> Vec<Call> {
        audit::read(&self.folder.path().join("audit.log"), then)
    }
}

/// Another program took a port that was free a moment ago; has the end of the log.
#[derive(Debug)]
struct PortTaken(String);

/// Whether one of the processes ended because its port was taken. An end for any other reason is a failure.
fn taken<'a>(processes: impl IntoIterator<Item = &'a mut Process>) -> Option<PortTaken> {
    for process in processes {
        let Some(status) = process.ended() else { continue };
        let end = tail(&process.said());
        if end.contains("address already in use") {
            return Some(PortTaken(end));
        }
        panic!("{} ended with {status}:\n{end}", process.log.display());
    }
    None
}

/// A client of the API server that trusts this certificate. Connections belong to the runtime of the test that opened
/// them, so a shared client keeps none.
fn client_that_trusts(pem: &[u8], keep_connections: bool) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = reqwest::Certificate::from_pem_bundle(pem).expect("certificates");
    reqwest::Client::builder()
        .tls_certs_only(certificates)
        .http1_only()
        .pool_max_idle_per_host(if keep_connections { 8 } else { 0 })
        .timeout(Duration::from_mins(2))
        .build()
        .expect("a client")
}

fn write_kubeconfig(path: &Path, certificate: &Path, server: SocketAddr, credentials: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"https://{server}\", certificate-authority: {}}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
         users: [{{name: test, user: {{{credentials}}}}}]\n",
        certificate.display()
    );
    std::fs::write(path, text).expect("a kubeconfig");
}

/// Creates a key pair that signs tokens of service accounts.
fn service_account_keys(private: &Path, public: &Path) {
    /// `SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING }` up to the point (RFC 5480).
    const P256: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("a key");
    let point = pair.public_key().as_ref();
    std::fs::write(private, pem("PRIVATE KEY", pkcs8.as_ref())).expect("a key file");
    std::fs::write(public, pem("PUBLIC KEY", &[&P256, point].concat())).expect("a key file");
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
    }
    pem + &format!("-----END {label}-----\n")
}
