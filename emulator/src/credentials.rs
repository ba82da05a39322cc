//! Token endpoints: OAuth, STS, metadata server, IAM Credentials.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::call::{Call, Reply, form_value};
use crate::error::ApiError;
use crate::policy;
use crate::world::World;

const LIFETIME_SECONDS: u64 = 3599;
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const METADATA_ACCOUNT: &str = "default@emulated.iam.gserviceaccount.com";

/// True when the body of a call to this path contains credentials.
pub(crate) fn carries_secrets(path: &str) -> bool {
    path == "/token" || path == "/v1/token" || path == "/o/oauth2/token" || path == "/oauth2/v4/token"
}

/// Answers a credentials call; none for any other call.
pub(crate) fn answer(world: &mut World, call: &Call, segments: &[&str], verb: Option<&str>) -> Option<Reply> {
    match (call.method.as_str(), segments, verb) {
        ("POST", ["token"] | ["v1", "token"] | ["o", "oauth2", "token"] | ["oauth2", "v4", "token"], None) => {
            Some(token(world, call))
        }
        ("GET", ["computeMetadata", "v1", rest @ ..], None) => Some(metadata(world, call, rest)),
        ("GET", [""], None) if call.host.starts_with("metadata") || call.metadata_flavor => {
            Some(Reply::Text("computeMetadata/\n".to_owned()))
        }
        ("POST", ["v1", "projects", project, "serviceAccounts", account], Some("generateAccessToken")) => {
            Some(generate(world, call, project, account).into())
        }
        _ => None,
    }
}

fn issue(world: &mut World, principal: &str, seconds: u64) -> String {
    let expires = world.clock.micros() + seconds * 1_000_000;
    world.callers.issue(principal, expires)
}

/// OAuth errors have a form of their own (RFC 6749, 5.2).
fn oauth_error(code: &str, description: &str) -> Reply {
    Reply::Json(400, json!({ "error": code, "error_description": description }))
}

fn token(world: &mut World, call: &Call) -> Reply {
    let form = String::from_utf8_lossy(&call.body).into_owned();
    match form_value(&form, "grant_type").as_deref() {
        Some(JWT_BEARER) => {
            let issuer = form_value(&form, "assertion")
                .as_deref()
                .and_then(claims)
                .and_then(|claims| claims["iss"].as_str().map(str::to_owned));
            let Some(issuer) = issuer else {
                return oauth_error("invalid_grant", "Invalid JWT: the assertion must be a signed JWT with an issuer.");
            };
            let token = issue(world, &format!("serviceAccount:{issuer}"), LIFETIME_SECONDS);
            Reply::Json(200, json!({ "access_token": token, "expires_in": LIFETIME_SECONDS, "token_type": "Bearer" }))
        }
        Some("refresh_token") => {
            let token = issue(world, "user:refreshed@example.com", LIFETIME_SECONDS);
            Reply::Json(200, json!({ "access_token": token, "expires_in": LIFETIME_SECONDS, "token_type": "Bearer" }))
        }
        Some(TOKEN_EXCHANGE) => {
            let (Some(audience), Some(subject)) = (form_value(&form, "audience"), form_value(&form, "subject_token"))
            else {
                return oauth_error("invalid_request", "audience and subject_token are required.");
            };
            let subject = claims(&subject)
                .and_then(|claims| claims["sub"].as_str().map(str::to_owned))
                .unwrap_or_else(|| "subject".to_owned());
            let pool = audience.split("/providers/").next().unwrap_or(&audience);
            let token = issue(world, &format!("principal:{pool}/subject/{subject}"), LIFETIME_SECONDS);
            Reply::Json(
                200,
                json!({
                    "access_token": token,
                    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                    "expires_in": LIFETIME_SECONDS,
                    "token_type": "Bearer",
                }),
            )
        }
        Some(other) => oauth_error("unsupported_grant_type", &format!("Invalid grant_type: {other}")),
        None => oauth_error("invalid_request", "Required parameter is missing: grant_type"),
    }
}

/// The claims of a JWT. The signature is not checked, and base64 padding is accepted.
fn claims(jwt: &str) -> Option<Value> {
    let payload = jwt.split('.').nth(1)?.trim_end_matches('=');
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn metadata(world: &mut World, call: &Call, rest: &[&str]) -> Reply {
    if !call.metadata_flavor {
        return Reply::Html(403);
    }
    match rest {
        ["instance", "service-accounts", account, "token"] => {
            let email = if *account == "default" { METADATA_ACCOUNT } else { account };
            let token = issue(world, &format!("serviceAccount:{email}"), LIFETIME_SECONDS);
            Reply::Json(200, json!({ "access_token": token, "expires_in": LIFETIME_SECONDS, "token_type": "Bearer" }))
        }
        ["instance", "service-accounts", _, "email"] => Reply::Text(METADATA_ACCOUNT.to_owned()),
        ["project", "project-id"] => Reply::Text("emulated".to_owned()),
        ["universe", "universe-domain" | "universe_domain"] => Reply::Text("googleapis.com".to_owned()),
        _ => Reply::Html(404),
    }
}

fn generate(world: &mut World, call: &Call, project: &str, account: &str) -> Result<Value, ApiError> {
    let body = policy::parse_json(&call.body)?;
    if project != "-" {
        return Err(ApiError::invalid(
            "Invalid form of the resource name: the project must be given as the wildcard '-'.",
        ));
    }
    if !body["scope"]
        .as_array()
        .is_some_and(|scopes| scopes.iter().any(|scope| scope.as_str().is_some_and(|s| !s.is_empty())))
    {
        return Err(ApiError::invalid("Scope required."));
    }
    let seconds = match &body["lifetime"] {
        Value::Null => 3600,
        Value::String(text) => text
            .strip_suffix('s')
            .and_then(|seconds| seconds.parse::<u64>().ok())
            .filter(|seconds| *seconds > 0)
            .ok_or_else(|| ApiError::invalid(format!("Invalid value at 'lifetime', \"{text}\"")))?,
        other => return Err(ApiError::invalid(format!("Invalid value at 'lifetime', {other}"))),
    };
    if seconds > 3600 {
        return Err(ApiError::invalid(
            "The access token lifetime cannot exceed 3600s unless the constraint constraints/iam.allowServiceAccountCredentialLifetimeExtension permits it.",
        ));
    }
    let member = format!("serviceAccount:{account}");
    let unknown = account.contains('@') && world.directory.check(&member, world.clock.micros()).is_err();
    let caller = world.callers.identify(call.bearer.as_deref(), world.clock.micros())?;
    if unknown || world.callers.holds(&caller, "iam.serviceAccounts.getAccessToken") == Some(false) {
        return Err(ApiError::new(
            403,
            "PERMISSION_DENIED",
            "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
        )
        .with_details(json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "IAM_PERMISSION_DENIED",
            "domain": "iam.googleapis.com",
            "metadata": { "permission": "iam.serviceAccounts.getAccessToken" },
        }])));
    }
    let expires = world.clock.micros() + seconds * 1_000_000;
    let token = world.callers.issue(&member, expires);
    let expire_time = i64::try_from(expires)
        .ok()
        .and_then(|micros| jiff::Timestamp::from_second(micros / 1_000_000).ok())
        .unwrap_or_default();
    Ok(json!({ "accessToken": token, "expireTime": expire_time.to_string() }))
}
