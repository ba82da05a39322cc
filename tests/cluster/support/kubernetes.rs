//! The Kubernetes API over plain HTTP, as JSON: the request is exactly what the test specifies.

use reqwest::Method;
use serde_json::{Value, json};

/// An error answer of the API server.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

/// A user of the API server.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    pub(crate) base: String,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
    /// The impersonated user, with groups.
    pub(crate) impersonate: Option<(String, Vec<String>)>,
}

/// The location of the objects of a kind: path of group and version, plural, and whether it is namespaced.
fn place(kind: &str) -> (&'static str, &'static str, bool) {
    match kind {
        "IdentityProvider" => ("/apis/rolecall.dev/v1alpha1", "identityproviders", false),
        "CloudRunTarget" => ("/apis/rolecall.dev/v1alpha1", "cloudruntargets", false),
        "RoleMapping" => ("/apis/rolecall.dev/v1alpha1", "rolemappings", true),
        "Namespace" => ("/api/v1", "namespaces", false),
        "Secret" => ("/api/v1", "secrets", true),
        "ConfigMap" => ("/api/v1", "configmaps", true),
        "ServiceAccount" => ("/api/v1", "serviceaccounts", true),
        "PersistentVolumeClaim" => ("/api/v1", "persistentvolumeclaims", true),
        "Service" => ("/api/v1", "services", true),
        "Event" => ("/apis/events.k8s.io/v1", "events", true),
        "Deployment" => ("/apis/apps/v1", "deployments", true),
        "Lease" => ("/apis/coordination.k8s.io/v1", "leases", true),
        "ClusterRole" => ("/apis/rbac.authorization.k8s.io/v1", "clusterroles", false),
        "ClusterRoleBinding" => ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
        "Role" => ("/apis/rbac.authorization.k8s.io/v1", "roles", true),
        "RoleBinding" => ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", true),
        "GitRepository" => ("/apis/source.toolkit.fluxcd.io/v1", "gitrepositories", true),
        "Kustomization" => ("/apis/kustomize.toolkit.fluxcd.io/v1", "kustomizations", true),
        "CustomResourceDefinition" => ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", false),
        other => panic!("where are the objects of kind {other}?"),
    }
}

/// The path of an object: `name` is `NAME` or `NAMESPACE/NAME`, as in messages of kubectl.
pub(crate) fn path(kind: &str, name: &str) -> String {
    let (base, plural, namespaced) = place(kind);
    if let Some((namespace, name)) = name.split_once('/') {
        return format!("{base}/namespaces/{namespace}/{plural}/{name}");
    }
    assert!(!namespaced, "{kind} {name}: name it NAMESPACE/NAME");
    format!("{base}/{plural}/{name}")
}

/// The path of the objects of a kind in a namespace, or in all.
pub(crate) fn collection(kind: &str, namespace: Option<&str>) -> String {
    let (base, plural, _) = place(kind);
    namespace.map_or_else(|| format!("{base}/{plural}"), |namespace| format!("{base}/namespaces/{namespace}/{plural}"))
}

/// Kind, and `NAME` or `NAMESPACE/NAME`, of an object.
pub(crate) fn named(object: &Value) -> (String, String) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let kind = text("/kind").unwrap_or_else(|| panic!("an object without a kind: {object}"));
    let name = text("/metadata/name").unwrap_or_else(|| panic!("an object without a name: {object}"));
    let namespaced = place(&kind).2;
    let name = if namespaced {
        format!("{}/{name}", text("/metadata/namespace").unwrap_or_else(|| "default".to_owned()))
    } else {
        name
    };
    (kind, name)
}

/// The documents of a YAML text.
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

impl Kubernetes {
    /// The same client as another user (`--as`).
    pub(crate) fn acting_as(&self, user: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Self { impersonate: Some((user.to_owned(), groups)), ..self.clone() }
    }

    /// Makes one call. `body` is sent unchanged.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> Result<Value, Refused> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some((user, groups)) = &self.impersonate {
            request = request.header("Impersonate-User", user);
            for group in groups {
                request = request.header("Impersonate-Group", group);
            }
        }
        if !body.is_empty() {
            request = request.header("content-type", content_type).body(body);
        }
        let lost = |error: reqwest::Error| {
            let (reason, message) = ("NoAnswer".to_owned(), format!("{error:?}"));
            Refused { code: 0, reason, message }
        };
        let answer = request.send().await.map_err(lost)?;
        let (code, text) = (answer.status().as_u16(), answer.text().await.map_err(lost)?);
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if code < 400 {
            return Ok(value);
        }
        let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let message = value["message"].as_str().map_or_else(|| value.to_string(), str::to_owned);
        Err(Refused { code, reason: word("reason"), message })
    }

    async fn json(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Result<Value, Refused> {
        self.call(method, path, content_type, body.to_string()).await
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Result<Value, Refused> {
        self.call(Method::GET, &path(kind, name), "", String::new()).await
    }

    /// The object, or null when it does not exist.
    pub(crate) async fn find(&self, kind: &str, name: &str) -> Value {
        match self.get(kind, name).await {
            Ok(object) => object,
            Err(refused) if refused.code == 404 => Value::Null,
            Err(refused) => panic!("{kind} {name}: {refused}"),
        }
    }

    /// The objects of a kind, without paging.
    pub(crate) async fn list(&self, kind: &str, namespace: Option<&str>) -> Result<Vec<Value>, Refused> {
        let answer = self.call(Method::GET, &collection(kind, namespace), "", String::new()).await?;
        Ok(answer["items"].as_array().cloned().unwrap_or_default())
    }

    /// `kubectl create --validate=strict`.
    pub(crate) async fn create(&self, object: &Value) -> Result<Value, Refused> {
        let (kind, name) = named(object);
        let path = format!("{}?fieldValidation=Strict", collection(&kind, name.split_once('/').map(|(ns, _)| ns)));
        self.json(Method::POST, &path, "application/json", object).await
    }

    /// `kubectl replace`.
    pub(crate) async fn replace(&self, object: &Value) -> Result<Value, Refused> {
        let (kind, name) = named(object);
        let path = format!("{}?fieldValidation=Strict", path(&kind, &name));
        self.json(Method::PUT, &path, "application/json", object).await
    }

    /// Server-side apply by `manager`; `subresource` is empty or such as `/status`.
    pub(crate) async fn apply_as(&self, manager: &str, subresource: &str, object: &Value) -> Result<Value, Refused> {
        let (kind, name) = named(object);
        let path =
            format!("{}{subresource}?fieldManager={manager}&force=true&fieldValidation=Strict", path(&kind, &name));
        self.json(Method::PATCH, &path, "application/apply-patch+yaml", object).await
    }

    /// Server-side apply of all documents of a YAML text, as the user of `kubectl apply --server-side`.
    pub(crate) async fn apply(&self, yaml: &str) {
        for document in documents(yaml) {
            let (kind, name) = named(&document);
            if let Err(refused) = self.apply_as("kubectl", "", &document).await {
                panic!("apply {kind} {name}: {refused}");
            }
        }
    }

    /// A JSON merge patch.
    pub(crate) async fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<Value, Refused> {
        self.json(Method::PATCH, &path(kind, name), "application/merge-patch+json", patch).await
    }

    /// Deletes an object without waiting for finalizers.
    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        if let Err(refused) = self.call(Method::DELETE, &path(kind, name), "", String::new()).await {
            panic!("delete {kind} {name}: {refused}");
        }
    }

    /// Creates a namespace with these labels.
    pub(crate) async fn namespace(&self, name: &str, labels: &Value) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.apply_as("kubectl", "", &object).await.unwrap_or_else(|refused| panic!("namespace {name}: {refused}"));
    }

    /// Creates a token for a `ServiceAccount`, `NAMESPACE/NAME`, with a `TokenRequest`.
    pub(crate) async fn service_account_token(&self, account: &str) -> String {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}});
        let path = format!("{}/token", path("ServiceAccount", account));
        let answer = self.json(Method::POST, &path, "application/json", &body).await;
        let answer = answer.unwrap_or_else(|refused| panic!("a token for {account}: {refused}"));
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }
}
