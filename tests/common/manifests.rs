//! Minimal manifests for tests.

pub(crate) const INVOKER: &str = "roles/run.invoker";
pub(crate) const VIEWER: &str = "roles/run.viewer";
pub(crate) const TOKEN: &str = "scim-token-of-okta-0123456789abcdef";

/// The provider `okta` with its Secret, and the target `shop-dev`.
pub(crate) fn base() -> Vec<(&'static str, String)> {
    vec![("provider.yaml", provider("okta", TOKEN)), ("target.yaml", target(&["services/*"], &[INVOKER, VIEWER]))]
}

/// A provider and the Secret with its token.
pub(crate) fn provider(name: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}-scim, namespace: rolecall-system}}\n\
         stringData: {{token: {token}}}\n---\n\
         apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {{name: {name}}}\nspec:\n  \
         scim:\n    tokens: [{{name: a, secretRef: {{name: {name}-scim}}}}]\n  principals:\n    \
         allowedDomains: [example.com]\n    users: {{googleAccount: {{attribute: userName}}}}\n"
    )
}

/// The target `shop-dev`, which permits namespace `checkout` to map these roles on these resources.
pub(crate) fn target(resources: &[&str], roles: &[&str]) -> String {
    format!(
        "apiVersion: rolecall.dev/v1alpha1\nkind: CloudRunTarget\nmetadata: {{name: shop-dev}}\nspec:\n  \
         project: shop-dev\n  locations: [europe-west1]\n  discoveryInterval: 1s\n  allow:\n    \
         - namespaces: {{names: [checkout]}}\n      identityProviders: [okta, entra]\n      \
         resources: {resources:?}\n      roles: {roles:?}\n"
    )
}

/// A mapping in namespace `checkout`. `extra` is appended to the spec, one `  key: value` per line.
pub(crate) fn mapping(name: &str, group: &str, resources: &[&str], roles: &[&str], extra: &str) -> String {
    format!(
        "apiVersion: rolecall.dev/v1alpha1\nkind: RoleMapping\nmetadata:\n  name: {name}\n  namespace: checkout\nspec:\n  \
         subjects:\n    - identityProvider: okta\n      groups: [{{displayName: {group}}}]\n  grants:\n    \
         - target: {{name: shop-dev}}\n      resources: {resources:?}\n      roles: {roles:?}\n{extra}"
    )
}
