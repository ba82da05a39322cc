//! `IdentityProvider`: one SCIM tenant, how its tokens are kept and how its people become Google principals.

#![expect(clippy::duplicated_attributes, reason = "printer columns of the derive repeat their keys")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What an IdP pushes here over SCIM 2.0, and how its people are named at Google.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "rolecall.dev",
    version = "v1alpha1",
    kind = "IdentityProvider",
    plural = "identityproviders",
    shortname = "idp",
    category = "rolecall",
    status = "IdentityProviderStatus",
    derive = "PartialEq",
    doc = "One SCIM tenant of an identity provider such as Okta or Entra: its bearer tokens, and the names of its people at Google.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Dialect", type_ = "string", json_path = ".status.dialect"),
    printcolumn(name = "Users", type_ = "integer", json_path = ".status.users"),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".status.groups"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityProviderSpec {
    /// Whether requests of this IdP are accepted. Suspended: SCIM requests are answered with 503, and existing grants
    /// stay as they are.
    #[serde(default)]
    pub(crate) state: ProviderState,

    /// The SCIM endpoint of this tenant.
    pub(crate) scim: ScimSpec,

    /// How people become Google principals. Nothing outside the allowed domains is ever written to a policy.
    pub(crate) principals: PrincipalsSpec,

    /// What a group that is a member of another group means. Resolve: the people in it are members of the other one, too,
    /// through up to 10 levels. Ignore: only users are members. Omitted: Resolve, except for a directory that was stored
    /// before rolecall resolved nested groups, where it is Ignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nested_groups: Option<NestedGroups>,

    /// Time without a request after which the condition Fresh becomes False, for example 26h. A silent IdP causes no
    /// removals. Omitted: silence is not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub(crate) stale_after: Option<String>,
}

/// What a group that is a member of another group means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "What a group that is a member of another group means.")]
pub(crate) enum NestedGroups {
    /// The people in it are members of the other one.
    Resolve,
    /// Nothing.
    Ignore,
}

/// Whether requests of an IdP are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Whether requests of this IdP are accepted.")]
pub(crate) enum ProviderState {
    /// Accepted.
    #[default]
    Active,
    /// SCIM answers 503 and the claims of this provider are frozen.
    Suspended,
}

/// The SCIM endpoint of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.tokens) && size(self.tokens) > 0) || (has(self.oauthClients) && size(self.oauthClients) > 0) || has(self.oidc)",
    "message": "name at least one of tokens, oauthClients and oidc; without any, no request is accepted"
}]))]
pub(crate) struct ScimSpec {
    /// Treatment of deviations of IdPs from the RFCs. Explain accepts those whose meaning is clear and reports each in
    /// status.findings; Strict refuses them with 400.
    #[serde(default)]
    pub(crate) strictness: Strictness,

    /// The IdP whose deviations are expected. Auto takes the one that the requests look like, which is in
    /// status.dialect. A PATCH of a group is answered with the group for all but Entra, which asks for no body.
    #[serde(default)]
    pub(crate) dialect: DialectChoice,

    /// Bearer tokens that the IdP may use. Several can be valid at once, for rotation: add the new one, change it at
    /// the IdP, remove the old one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub(crate) tokens: Vec<TokenSpec>,

    /// OAuth 2.0 clients, for an IdP that gets its tokens by client credentials (RFC 6749): at the address in
    /// status.tokenEndpoint, an id and a secret are exchanged for a bearer token of an hour. Several can be valid at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub(crate) oauth_clients: Vec<OAuthClientSpec>,

    /// Tokens that an OpenID Connect issuer signs for the IdP. Its keys are read by discovery over https; RS256 and ES256 are
    /// accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oidc: Option<OidcSpec>,

    /// Requests per second and token, with bursts of as many; further ones are answered with 429 and Retry-After. Less
    /// than 25, on which Microsoft Entra ID relies, is taken as 25. Omitted: the value of --requests-per-second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) requests_per_second: Option<i64>,

    /// Time until which the last requests with an accepted token are kept in memory, without names and addresses of people, for
    /// `rolecall doctor IDP --capture` and `rolecall replay`. At most the last 24 hours before it, or what --max-capture allows.
    /// Omitted: no request is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capture_until: Option<Time>,
}

/// The IdP whose deviations are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "The IdP whose deviations are expected.")]
pub(crate) enum DialectChoice {
    /// As the requests look.
    #[default]
    Auto,
    /// Okta.
    Okta,
    /// Microsoft Entra ID.
    Entra,
    /// Any other.
    Generic,
}

/// Treatment of documented deviations of IdPs from the RFCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "Treatment of documented deviations of IdPs from the RFCs.")]
pub(crate) enum Strictness {
    /// Accepted and reported.
    #[default]
    Explain,
    /// Refused.
    Strict,
}

/// One bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenSpec {
    /// The token's name, used in status and in the audit log.
    #[schemars(schema_with = "schema::label_name")]
    pub(crate) name: String,

    /// The Secret with the token, in the operator's own namespace.
    pub(crate) secret_ref: SecretKeyRef,

    /// Time from which on the token is refused. Omitted: it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<Time>,
}

/// One OAuth 2.0 client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OAuthClientSpec {
    /// The client's name. In status and in the audit log it is oauth:NAME.
    #[schemars(schema_with = "schema::label_name")]
    pub(crate) name: String,

    /// The Secret with the keys clientId and clientSecret, in the operator's own namespace. When either changes, all
    /// tokens that the client got are refused.
    pub(crate) secret_ref: SecretRef,

    /// Time from which on the client and all tokens that it got are refused. Omitted: it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<Time>,
}

/// The tokens of an OpenID Connect issuer that are accepted. All three must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OidcSpec {
    /// The issuer, exactly as in the claim iss and in the issuer's discovery document.
    #[schemars(schema_with = "schema::issuer")]
    pub(crate) issuer: String,

    /// The audience, which the claim aud must name.
    #[schemars(length(min = 1, max = 256))]
    pub(crate) audience: String,

    /// The subjects: the values of the claim sub that are accepted. In status and in the audit log each is oidc:SUBJECT.
    #[schemars(schema_with = "schema::subjects")]
    pub(crate) subjects: Vec<String>,
}

/// A Secret in the operator's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretRef {
    /// The Secret's name.
    #[schemars(schema_with = "schema::secret_name")]
    pub(crate) name: String,
}

/// One key of a Secret in the operator's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(schema_with = "schema::secret_name")]
    pub(crate) name: String,

    /// The key in the Secret: token holds the bearer token itself, tokenSHA256 its SHA-256 as 64 hexadecimal digits.
    /// When the Secret has only the other one, that is read.
    #[serde(default)]
    pub(crate) key: SecretKey,
}

/// The key of a Secret that holds a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "The key of a Secret that holds a token.")]
pub(crate) enum SecretKey {
    /// The bearer token itself.
    #[default]
    #[serde(rename = "token")]
    Token,
    /// Its SHA-256, as 64 hexadecimal digits.
    #[serde(rename = "tokenSHA256")]
    TokenSha256,
}

impl SecretKey {
    /// The key as it is spelled in the Secret.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::TokenSha256 => "tokenSHA256",
        }
    }
}

/// How people become Google principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PrincipalsSpec {
    /// Domains that an address must have, exactly and in lower case, to be written to a policy.
    #[schemars(schema_with = "schema::domains")]
    pub(crate) allowed_domains: Vec<String>,

    /// Derivation of principals from users.
    pub(crate) users: UserPrincipalsSpec,
}

/// Derivation of principals from users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserPrincipalsSpec {
    /// Users are Google accounts and are written as user:ADDRESS.
    pub(crate) google_account: GoogleAccountSpec,
}

/// Users are Google accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GoogleAccountSpec {
    /// The SCIM attribute that holds the address of the Google account.
    pub(crate) attribute: UserAttribute,
}

/// The SCIM attributes that may hold an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "The SCIM attribute that holds the address of the Google account.")]
pub(crate) enum UserAttribute {
    /// `userName`
    #[serde(rename = "userName")]
    UserName,
    /// `externalId`
    #[serde(rename = "externalId")]
    ExternalId,
    /// `emails[primary eq true].value`
    #[serde(rename = "emails[primary eq true].value")]
    PrimaryEmail,
    /// `emails[type eq "work"].value`
    #[serde(rename = "emails[type eq \"work\"].value")]
    WorkEmail,
}

/// Observed state of a tenant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityProviderStatus {
    /// The generation that this status describes; -1 until rolecall has reconciled the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub(crate) observed_generation: Option<i64>,

    /// The SCIM base URL to enter at the IdP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub(crate) endpoint: Option<String>,

    /// The address at which the OAuth 2.0 clients of spec.scim.oauthClients get their tokens; omitted when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub(crate) token_endpoint: Option<String>,

    /// The IdP that the requests look like: Okta, Entra or Generic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) dialect: Option<String>,

    /// Number of users that the IdP pushed and did not delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub(crate) users: Option<i64>,

    /// Number of groups that the IdP pushed and did not delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub(crate) groups: Option<i64>,

    /// Time of the last authenticated request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_request_time: Option<Time>,

    /// The tokens by name, the OAuth 2.0 clients as oauth:NAME and the OpenID Connect subjects as oidc:SUBJECT, each with the time of its last use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub(crate) tokens: Vec<TokenStatus>,

    /// Deviations of this IdP from the RFCs, and how to fix them there. The first 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub(crate) findings: Vec<FindingStatus>,

    /// The id of the database that holds this tenant's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) store_id: Option<String>,

    /// The namespace of the rolecall that serves this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) operator_namespace: Option<String>,

    /// The last value of the annotation rolecall.dev/reconcile-requested-at that was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub(crate) last_handled_reconcile_at: Option<String>,

    /// Ready, Reconciling, Stalled, Fresh, `TokensValid`, `QuotaExceeded` and Capturing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub(crate) conditions: Vec<Condition>,
}

/// Observed state of a token, or of another credential.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenStatus {
    /// The name of the token, oauth:NAME of an OAuth 2.0 client, or oidc:SUBJECT.
    #[schemars(length(max = 256))]
    pub(crate) name: String,

    /// Time from which on the token is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<Time>,

    /// Time of its last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_used: Option<Time>,

    /// Why the token cannot be used, as a reason word; omitted when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub(crate) reason: Option<String>,
}

/// A deviation of the IdP from the RFCs, or requests of it that were refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FindingStatus {
    /// The stable word of the finding.
    #[schemars(length(max = 63))]
    pub(crate) code: String,

    /// The place in the request: a JSON pointer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub(crate) pointer: String,

    /// What to change at the IdP.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub(crate) hint: String,

    /// Number of occurrences since the process started.
    #[schemars(range(min = 0))]
    pub(crate) count: i64,

    /// Time of the last occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen: Option<Time>,
}
