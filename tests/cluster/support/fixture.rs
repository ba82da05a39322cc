//! The fixture of most tests: a cluster, the emulator, the chart and one pod.

use std::ops::Deref;

use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::kubernetes::Kubernetes;
use super::proxy::Proxy;
use super::release::{Pod, Release};
use crate::common::{Google, Progress, Scim, base, eventually, tail};

/// The namespace of the release; the Secrets of [`crate::common::provider`] are in it.
pub(crate) const SYSTEM: &str = "rolecall-system";

pub(crate) struct Fixture {
    // Fields are dropped in this order: the pod before the servers it uses.
    pub(crate) pod: Pod,
    pub(crate) release: Release,
    pub(crate) proxy: Proxy,
    pub(crate) google: Google,
    pub(crate) cluster: ControlPlane,
}

impl Deref for Fixture {
    type Target = Google;

    fn deref(&self) -> &Google {
        &self.google
    }
}

impl Fixture {
    /// Prepares everything but a running pod. The namespace `checkout` exists, and no object of rolecall does.
    pub(crate) async fn prepare(more: &[&str]) -> Self {
        let cluster = ControlPlane::start().await;
        let pod_log = cluster.folder().join(format!("pod-{SYSTEM}-rolecall-0/rolecall.log"));
        let google = Google::start(pod_log).await;
        let release = Release::install(&cluster, &google.url, "rolecall", SYSTEM, more).await;
        let release = release.unwrap_or_else(|output| panic!("helm install: {}{}", output.stdout, output.stderr));
        cluster.crds_established().await;
        cluster.admin.namespace("checkout", &json!({})).await;
        let proxy = Proxy::start(cluster.address);
        let pod = release.pod(&cluster, "rolecall-0", proxy.address).await;
        Self { pod, release, proxy, google, cluster }
    }

    /// The same, with the pod ready and [`base`] applied.
    pub(crate) async fn start() -> Self {
        let mut fixture = Self::prepare(&[]).await;
        for (_, text) in base() {
            fixture.admin().apply(&text).await;
        }
        fixture.pod.start().await;
        fixture
    }

    /// The administrator of the cluster.
    pub(crate) fn admin(&self) -> &Kubernetes {
        &self.cluster.admin
    }

    /// The IdP of a provider.
    pub(crate) fn scim(&self, provider: &str, token: &str) -> Scim {
        self.pod.scim(provider, token)
    }

    /// The progress of the pod.
    pub(crate) fn progress(&self) -> Progress {
        self.pod.progress()
    }

    /// Checks that the members of `role` on `service` are exactly these, and stay so when everything is read again.
    pub(crate) async fn members_stay(&self, service: &str, role: &str, members: &[&str]) {
        self.members_are(service, role, members).await;
        self.progress().settled_and_read().await;
        self.members_are(service, role, members).await;
    }

    /// The object, or null.
    pub(crate) async fn object(&self, kind: &str, name: &str) -> Value {
        self.admin().find(kind, name).await
    }

    /// Waits until `check` accepts an object, which is null when it does not exist.
    pub(crate) async fn until(&self, kind: &str, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{kind} {name}: {what}"), async || {
            // Some tests make the API server unavailable.
            let object = match self.admin().get(kind, name).await {
                Ok(object) => object,
                Err(refused) if refused.code == 404 => Value::Null,
                Err(refused) => return Err(refused.to_string()),
            };
            if check(&object) { Ok(object) } else { Err(format!("{object:#}; log:\n{}", tail(&self.pod.said()))) }
        })
        .await
    }

    /// Waits until `check` accepts the status of a mapping.
    pub(crate) async fn mapping_status(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        self.until("RoleMapping", name, what, |object| check(&object["status"])).await["status"].clone()
    }

    /// Waits until an object no longer exists.
    pub(crate) async fn gone(&self, kind: &str, name: &str) {
        self.until(kind, name, "gone", Value::is_null).await;
    }
}
