//! Flux: its real kustomize-controller beside the API server, and a Git source written by the test itself.
//!
//! No source-controller runs: the test serves the artifact on loopback and writes the status of the `GitRepository`.

use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::control_plane::ControlPlane;
use super::kubernetes::Kubernetes;
use super::process::Process;
use super::tools::{run, tool};
use crate::common::{condition, eventually, eventually_within, has, tail};

const NAMESPACE: &str = "flux-system";
const ACCOUNT: &str = "kustomize-controller";
/// The `GitRepository` and the `Kustomization`.
const NAME: &str = "flux-system/access";
/// Timeout for a revision to become Ready. Flux polls every five seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running kustomize-controller with the `GitRepository` and the `Kustomization` `access`. Drop it before the cluster.
pub(crate) struct Flux {
    process: Process,
    admin: Kubernetes,
    /// Folder from which artifacts are served.
    folder: PathBuf,
    url: String,
    server: JoinHandle<()>,
    /// Its user name at the API server.
    pub(crate) user: String,
}

impl Drop for Flux {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Flux {
    /// Installs the CRDs and starts the controller with the permissions that Flux gives it. Creates the source without
    /// an artifact, and a `Kustomization` with `wait: true` and `prune: true`.
    pub(crate) async fn start(cluster: &ControlPlane) -> Self {
        let admin = cluster.admin.clone();
        for folder in ["kustomize-crds", "source-crds"] {
            for entry in std::fs::read_dir(tool(folder)).expect("the CRDs of Flux") {
                let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a CRD");
                admin.apply(&text).await;
            }
        }
        admin.namespace(NAMESPACE, &json!({})).await;
        admin.apply(&rights()).await;
        served(&admin).await;

        let folder = cluster.folder().join("flux");
        std::fs::create_dir_all(folder.join("artifacts")).expect("a folder");
        std::fs::create_dir_all(folder.join("tmp")).expect("a folder");
        let (url, server) = serve(folder.join("artifacts")).await;
        let token = admin.service_account_token(&format!("{NAMESPACE}/{ACCOUNT}")).await;
        let kubeconfig = cluster.kubeconfig("flux", cluster.address, &format!("token: {token}"));
        let process = Process::start(
            &tool("kustomize-controller"),
            &[
                // Disables both ports.
                "--metrics-addr=0".to_owned(),
                "--health-addr=0".to_owned(),
                "--no-remote-bases".to_owned(),
                "--requeue-dependency=1s".to_owned(),
            ],
            &[
                ("KUBECONFIG".to_owned(), kubeconfig.display().to_string()),
                ("RUNTIME_NAMESPACE".to_owned(), NAMESPACE.to_owned()),
                ("HOME".to_owned(), folder.display().to_string()),
                ("TMPDIR".to_owned(), folder.join("tmp").display().to_string()),
            ],
            folder.join("kustomize-controller.log"),
        );
        let user = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
        let mut this = Self { process, admin, folder, url, server, user };
        this.admin.apply(&source_and_kustomization()).await;
        // The controller's first write to a Kustomization.
        this.until("a Kustomization that Flux has seen", |object| {
            object["metadata"]["finalizers"] == json!(["finalizers.fluxcd.io"])
        })
        .await;
        this
    }

    /// Publishes these files (path, text) as the newest revision of the source, and returns the revision.
    pub(crate) async fn publish(&self, files: &[(&str, &str)]) -> String {
        let tree = tempfile::tempdir_in(&self.folder).expect("a folder");
        for (path, text) in files {
            std::fs::write(tree.path().join(path), text).expect("a file");
        }
        let packed = self.folder.join("packed.tar.gz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&packed).arg("-C").arg(tree.path()).arg(".");
        run(tar, "").await.ok();
        let bytes = std::fs::read(&packed).expect("an archive");
        let digest =
            digest(&SHA256, &bytes).as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        std::fs::rename(&packed, self.folder.join("artifacts").join(&digest)).expect("an artifact");
        let revision = format!("main@sha256:{digest}");
        // Flux distinguishes artifacts by their revision.
        let now = "2026-01-01T00:00:00Z";
        let status = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": "GitRepository",
            "metadata": {"name": "access", "namespace": NAMESPACE},
            "status": {
                "observedGeneration": 1,
                "artifact": {
                    "path": digest,
                    "url": format!("{}/{digest}", self.url),
                    "digest": format!("sha256:{digest}"),
                    "revision": revision,
                    "size": bytes.len(),
                    "lastUpdateTime": now,
                },
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored artifact",
                    "lastTransitionTime": now, "observedGeneration": 1,
                }],
            },
        });
        let written = self.admin.apply_as("source-controller", "/status", &status).await;
        written.unwrap_or_else(|refused| panic!("the artifact of {NAME}: {refused}"));
        revision
    }

    /// The `Kustomization`.
    pub(crate) async fn kustomization(&self) -> Value {
        self.admin.find("Kustomization", NAME).await
    }

    /// Waits until `check` accepts the `Kustomization`.
    pub(crate) async fn until(&mut self, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually_within(PATIENCE, what, async || {
            if let Some(status) = self.process.ended() {
                panic!("kustomize-controller ended with {status}:\n{}", tail(&self.process.said()));
            }
            let object = self.kustomization().await;
            if check(&object) {
                Ok(object)
            } else {
                Err(format!("{:#}\n{}", object["status"], tail(&self.process.said())))
            }
        })
        .await
    }

    /// Waits until the `Kustomization` is Ready with this revision.
    pub(crate) async fn ready(&mut self, revision: &str) -> Value {
        self.until(&format!("Ready with {revision}"), |object| is_ready(object, revision)).await
    }

    /// Waits until the controller has applied this revision and waits for what it applied.
    pub(crate) async fn waiting(&mut self, revision: &str) {
        let what = format!("health checks of {revision}");
        self.until(&what, |object| {
            assert!(!is_ready(object, revision), "Ready already: {:#}", object["status"]);
            checks_health(object, revision)
        })
        .await;
    }

    /// Requests a reconcile, as `flux reconcile kustomization` does, and waits until it is finished.
    pub(crate) async fn reconcile(&mut self, request: &str) {
        let patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": request}}});
        self.admin.patch("Kustomization", NAME, &patch).await.expect("an annotation");
        self.until("a reconciliation on request", |object| {
            object["status"]["lastHandledReconcileAt"] == request
                && has(&object["status"], "Ready", "True", "ReconciliationSucceeded")
        })
        .await;
    }

    /// The log of the controller.
    pub(crate) fn said(&self) -> String {
        self.process.said()
    }
}

/// True when the `Kustomization` reports this revision as applied and healthy.
pub(crate) fn is_ready(kustomization: &Value, revision: &str) -> bool {
    has(&kustomization["status"], "Ready", "True", "") && kustomization["status"]["lastAppliedRevision"] == revision
}

/// True while the controller polls the objects of this revision.
pub(crate) fn checks_health(kustomization: &Value, revision: &str) -> bool {
    let reconciling = condition(&kustomization["status"], "Reconciling");
    let message = reconciling["message"].as_str().unwrap_or_default();
    message.starts_with("Running health checks") && message.contains(revision)
}

/// Serves the files of a folder on loopback.
async fn serve(folder: PathBuf) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let file = move |uri: Uri| {
        let path = Path::new(uri.path()).file_name().map(|name| folder.join(name));
        ready(path.and_then(|path| std::fs::read(path).ok()).ok_or(StatusCode::NOT_FOUND))
    };
    let server = axum::serve(listener, Router::new().fallback(file)).into_future();
    (url, tokio::spawn(async move { server.await.expect("a server of artifacts") }))
}

/// Waits until the kinds of Flux that the controller watches are served.
async fn served(admin: &Kubernetes) {
    for path in [
        "/apis/kustomize.toolkit.fluxcd.io/v1/kustomizations",
        "/apis/source.toolkit.fluxcd.io/v1/buckets",
        "/apis/source.toolkit.fluxcd.io/v1/gitrepositories",
        "/apis/source.toolkit.fluxcd.io/v1/ocirepositories",
    ] {
        eventually(&format!("{path} is served"), async || {
            let listed = admin.call(reqwest::Method::GET, path, "", String::new()).await;
            listed.map(|_| ()).map_err(|refused| refused.to_string())
        })
        .await;
    }
}

/// The controller's `ServiceAccount`, bound to cluster-admin as `flux install` does.
fn rights() -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {ACCOUNT}, namespace: {NAMESPACE}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: cluster-reconciler}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}\n\
         subjects: [{{kind: ServiceAccount, name: {ACCOUNT}, namespace: {NAMESPACE}}}]\n"
    )
}

fn source_and_kustomization() -> String {
    format!(
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\n\
         metadata: {{name: access, namespace: {NAMESPACE}}}\n\
         spec: {{interval: 1h, url: \"https://git.example.com/platform/access.git\", ref: {{branch: main}}}}\n---\n\
         apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n\
         metadata: {{name: access, namespace: {NAMESPACE}}}\nspec:\n  \
         interval: 1h\n  retryInterval: 1s\n  timeout: 5m\n  prune: true\n  wait: true\n  path: ./\n  \
         sourceRef: {{kind: GitRepository, name: access}}\n"
    )
}
