//! Tokens and keys against a real issuer over TLS.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::fetch::FetchError;
use super::*;

#[path = "../../../tests/common/issuer.rs"]
mod issuer;

use issuer::{Answer, SigningKey, TestIssuer, fixture};

const SUBJECT: &str = "0oa-scim-client";

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn roots() -> Vec<Certificate> {
    vec![Certificate::from_pem(&std::fs::read(fixture("ca.pem")).unwrap()).unwrap()]
}

fn install_crypto_provider() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

fn issuers(allow_private: bool) -> Issuers {
    install_crypto_provider();
    Issuers::new(allow_private, roots()).unwrap()
}

fn policy(issuer: &TestIssuer) -> OidcPolicy {
    OidcPolicy {
        issuer: issuer.url.clone(),
        audience: "rolecall".to_owned(),
        subjects: [SUBJECT.to_owned(), "another".to_owned()].into(),
    }
}

/// The claims of a good token at `now`.
fn claims(issuer: &TestIssuer) -> Value {
    let start = now().as_second();
    json!({"iss": issuer.url, "aud": "rolecall", "sub": SUBJECT, "iat": start, "exp": start + 3600})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

#[tokio::test]
async fn tokens_signed_with_rs256_and_es256_by_the_issuer_are_accepted() {
    let (rsa, ec) = (SigningKey::rsa("rsa-one.pem"), SigningKey::ec());
    let issuer = TestIssuer::start(&[rsa.public("r"), ec.public("e")]).await;
    let issuers = issuers(true);
    for (key, kid) in [(&rsa, "r"), (&ec, "e")] {
        for aud in [json!("rolecall"), json!(["other", "rolecall"])] {
            let token = key.token(kid, &with(claims(&issuer), "aud", aud));
            let verified = issuers.verify(&policy(&issuer), token.as_bytes(), now()).await;
            assert_eq!(verified, Ok(SUBJECT.to_owned()));
        }
        let without_kid = key.sign(&json!({"alg": key.algorithm()}), &claims(&issuer));
        let verified = issuers.verify(&policy(&issuer), without_kid.as_bytes(), now()).await;
        assert_eq!(verified, Ok(SUBJECT.to_owned()), "the only key for the algorithm");
    }
    assert_eq!(issuer.requests(), 2, "the discovery document and the keys, once");
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused_before_any_key_is_read() {
    let key = SigningKey::rsa("rsa-one.pem");
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    let issuers = issuers(true);
    let at = |seconds: i64| json!(after(seconds).as_second());
    for (name, value, problem) in [
        ("iss", json!(format!("{}/", issuer.url)), JwtProblem::Issuer),
        ("iss", Value::Null, JwtProblem::Issuer),
        ("aud", json!("other"), JwtProblem::Audience),
        ("aud", json!([]), JwtProblem::Audience),
        ("aud", json!(["Rolecall"]), JwtProblem::Audience),
        ("aud", Value::Null, JwtProblem::Audience),
        ("sub", json!("stranger"), JwtProblem::Subject),
        ("sub", json!(""), JwtProblem::Subject),
        ("sub", Value::Null, JwtProblem::Subject),
        ("exp", Value::Null, JwtProblem::Expiry),
        ("exp", at(-60), JwtProblem::Expiry),
        ("exp", json!(0), JwtProblem::Expiry),
        ("exp", json!("9999999999"), JwtProblem::Malformed),
        ("exp", json!(1e300), JwtProblem::Malformed),
        ("exp", at(24 * 3600 + 61), JwtProblem::Lifetime),
        ("iat", at(-24 * 3600), JwtProblem::Lifetime),
        ("iat", at(61), JwtProblem::NotYetValid),
        ("nbf", at(61), JwtProblem::NotYetValid),
    ] {
        let token = key.token("a", &with(claims(&issuer), name, value.clone()));
        let verified = issuers.verify(&policy(&issuer), token.as_bytes(), now()).await;
        assert_eq!(verified, Err(problem), "{name} = {value}");
    }
    assert_eq!(issuer.requests(), 0);
    for (name, value) in
        [("exp", at(-59)), ("iat", at(60)), ("nbf", at(60)), ("iat", Value::Null), ("exp", json!(1_780_272_009.5))]
    {
        let token = key.token("a", &with(claims(&issuer), name, value.clone()));
        assert!(issuers.verify(&policy(&issuer), token.as_bytes(), now()).await.is_ok(), "{name} = {value}");
    }
}

#[tokio::test]
async fn headers_that_name_another_algorithm_or_key_are_refused_or_ignored() {
    let (key, attacker) = (SigningKey::rsa("rsa-one.pem"), SigningKey::rsa("rsa-two.pem"));
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    let hostile = TestIssuer::start(&[attacker.public("a")]).await;
    let issuers = issuers(true);
    let good = claims(&issuer);
    let from_there = json!({
        "alg": "RS256", "kid": "a", "jku": format!("{}/keys", hostile.url), "x5u": format!("{}/keys", hostile.url),
        "jwk": attacker.public("a"), "x5c": ["AAAA"]
    });
    let unsigned = key.sign(&json!({"alg": "none", "kid": "a"}), &good);
    let unsigned = unsigned.rsplit_once('.').map(|(signed, _)| format!("{signed}.")).unwrap();
    let hs256 = {
        let signed = key.sign(&json!({"alg": "HS256", "kid": "a"}), &good);
        let signed = signed.rsplit_once('.').unwrap().0.to_owned();
        let public = key.public("a")["n"].as_str().unwrap().to_owned();
        let mac =
            ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes()), signed.as_bytes());
        format!("{signed}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac))
    };
    let algorithm = |name: &str| key.sign(&json!({"alg": name, "kid": "a"}), &good);
    for (token, problem) in [
        (attacker.sign(&from_there, &good), JwtProblem::Signature),
        (attacker.token("a", &good), JwtProblem::Signature),
        (unsigned, JwtProblem::Algorithm),
        (hs256, JwtProblem::Algorithm),
        (algorithm("None"), JwtProblem::Algorithm),
        (algorithm("rs256"), JwtProblem::Algorithm),
        (algorithm("RS512"), JwtProblem::Algorithm),
        (algorithm("PS256"), JwtProblem::Algorithm),
        (algorithm("ES256"), JwtProblem::Key),
        (key.sign(&json!({"alg": "RS256", "kid": "a", "crit": ["exp"]}), &good), JwtProblem::Malformed),
        (key.sign(&json!({"kid": "a"}), &good), JwtProblem::Malformed),
        (key.token("a", &json!([])), JwtProblem::Malformed),
        (format!("{}.x", key.token("a", &good)), JwtProblem::Malformed),
        ("eyJhbGciOiJSUzI1NiJ9.!.x".to_owned(), JwtProblem::Malformed),
        (key.token("a", &with(good.clone(), "x", json!("a".repeat(20_000)))), JwtProblem::Malformed),
    ] {
        let verified = issuers.verify(&policy(&issuer), token.as_bytes(), now()).await;
        assert_eq!(verified, Err(problem), "{}", &token[..token.len().min(120)]);
    }
    let ignored = key.sign(&from_there, &good);
    assert!(issuers.verify(&policy(&issuer), ignored.as_bytes(), now()).await.is_ok());
    assert_eq!(hostile.requests(), 0);
}

#[tokio::test]
async fn unknown_keys_are_looked_for_once_a_minute_however_many_tokens_name_one() {
    let key = SigningKey::rsa("rsa-one.pem");
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    let (issuers, policy) = (issuers(true), policy(&issuer));
    let flood: Vec<String> = (0..50).map(|n| key.token(&format!("unknown-{n}"), &claims(&issuer))).collect();
    let sent = flood.iter().map(|token| issuers.verify(&policy, token.as_bytes(), now()));
    for verified in futures::future::join_all(sent).await {
        assert_eq!(verified, Err(JwtProblem::Key));
    }
    assert_eq!(issuer.requests(), 2);
    assert_eq!(issuers.verify(&policy, flood[0].as_bytes(), after(59)).await, Err(JwtProblem::Key));
    assert_eq!(issuer.requests(), 2);
    assert_eq!(issuers.verify(&policy, flood[0].as_bytes(), after(60)).await, Err(JwtProblem::Key));
    assert_eq!(issuer.requests(), 4);
    let good = key.token("a", &claims(&issuer));
    assert!(issuers.verify(&policy, good.as_bytes(), after(61)).await.is_ok(), "the flood delays nobody");
}

#[tokio::test]
async fn a_new_key_is_found_within_a_minute_and_a_withdrawn_one_is_dropped_within_the_hour() {
    let (old, new) = (SigningKey::rsa("rsa-one.pem"), SigningKey::rsa("rsa-two.pem"));
    let issuer = TestIssuer::start(&[old.public("old")]).await;
    let (issuers, policy) = (issuers(true), policy(&issuer));
    let long = with(claims(&issuer), "exp", json!(after(20 * 3600).as_second()));
    let (of_old, of_new) = (old.token("old", &long), new.token("new", &long));
    assert!(issuers.verify(&policy, of_old.as_bytes(), now()).await.is_ok());
    issuer.publish(&[new.public("new")]);
    assert_eq!(issuers.verify(&policy, of_new.as_bytes(), after(1)).await, Err(JwtProblem::Key));
    assert!(issuers.verify(&policy, of_old.as_bytes(), after(1)).await.is_ok());
    assert!(issuers.verify(&policy, of_new.as_bytes(), after(60)).await.is_ok());
    assert_eq!(issuers.verify(&policy, of_old.as_bytes(), after(60)).await, Err(JwtProblem::Key), "read meanwhile");

    // Without a token of an unknown key, the keys are read again after an hour, and the known one stays in use.
    issuer.publish(&[old.public("old")]);
    assert!(issuers.verify(&policy, of_new.as_bytes(), after(60 + 3600)).await.is_ok());
    let mut tries = 0;
    while issuers.verify(&policy, of_new.as_bytes(), after(60 + 3600)).await.is_ok() {
        tries += 1;
        assert!(tries < 1000, "the keys are not read again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn keys_of_an_issuer_that_is_down_are_used_for_a_day_and_not_longer() {
    let key = SigningKey::rsa("rsa-one.pem");
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    let (issuers, policy) = (issuers(true), policy(&issuer));
    let at = |seconds: i64| {
        let start = after(seconds).as_second();
        key.token("a", &with(with(claims(&issuer), "iat", json!(start)), "exp", json!(start + 60)))
    };
    assert!(issuers.verify(&policy, at(0).as_bytes(), now()).await.is_ok());
    issuer.stop();
    for seconds in [30, 3600, 12 * 3600, 24 * 3600 - 1] {
        assert!(issuers.verify(&policy, at(seconds).as_bytes(), after(seconds)).await.is_ok(), "{seconds}");
    }
    assert!(!issuers.is_unavailable(&issuer.url, after(24 * 3600 - 1)));
    let late = 25 * 3600;
    let verified = issuers.verify(&policy, at(late).as_bytes(), after(late)).await;
    assert_eq!(verified, Err(JwtProblem::IssuerUnavailable));
    assert!(issuers.is_unavailable(&issuer.url, after(late)));
    issuer.answers.lock().unwrap().discovery =
        Some(Answer::json(&json!({"issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url)})));
    issuer.publish(&[key.public("a")]);
    let later = late + 60;
    assert!(issuers.verify(&policy, at(later).as_bytes(), after(later)).await.is_ok());
    assert!(!issuers.is_unavailable(&issuer.url, after(later)));
}

#[tokio::test]
async fn documents_are_read_without_redirects_bounded_and_of_the_right_issuer_only() {
    let key = SigningKey::rsa("rsa-one.pem");
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    let fetcher = {
        install_crypto_provider();
        Fetcher::new(true, roots()).unwrap()
    };
    let good = issuer.answers.lock().unwrap().discovery.clone().unwrap();
    let refused = async |discovery: Answer, keys: Option<Answer>| {
        {
            let mut answers = issuer.answers.lock().unwrap();
            answers.discovery = Some(discovery);
            if let Some(keys) = keys {
                answers.keys = Some(keys);
            }
        }
        fetcher.keys(&issuer.url).await.err()
    };
    assert!(refused(good.clone(), None).await.is_none());
    let uri = |to: &str| Answer::json(&json!({"issuer": issuer.url, "jwks_uri": to}));
    let there = format!("{}/keys", issuer.url);
    let redirect = |to: &str| Answer { status: 302, location: Some(to.to_owned()), body: String::new() };
    let large = |answer: &Answer| Answer { body: answer.body.clone() + &" ".repeat(256 * 1024), ..answer.clone() };
    let keys = issuer.answers.lock().unwrap().keys.clone().unwrap();
    assert!(matches!(refused(redirect(&there), None).await, Some(FetchError::Status { status: 302, .. })));
    assert!(matches!(
        refused(good.clone(), Some(redirect(&there))).await,
        Some(FetchError::Status { status: 302, .. })
    ));
    assert!(matches!(refused(large(&good), None).await, Some(FetchError::TooLarge(_))));
    assert!(matches!(refused(good.clone(), Some(large(&keys))).await, Some(FetchError::TooLarge(_))));
    let other = Answer::json(&json!({"issuer": format!("{}/", issuer.url), "jwks_uri": there}));
    assert!(matches!(refused(other, Some(keys.clone())).await, Some(FetchError::OtherIssuer(_))));
    assert!(matches!(refused(uri("http://localhost/keys"), None).await, Some(FetchError::NotHttps(_))));
    assert!(matches!(refused(uri("file:///etc/passwd"), None).await, Some(FetchError::NotHttps(_))));
    let not_json = Answer { body: "<html>".to_owned(), ..good.clone() };
    assert!(matches!(refused(not_json.clone(), None).await, Some(FetchError::Malformed(_))));
    assert!(matches!(refused(good.clone(), Some(not_json)).await, Some(FetchError::Malformed(_))));
    let none = Answer::json(&json!({"keys": [
        {"kty": "oct", "k": "AAAA"}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}, 7,
        with(key.public("a"), "use", json!("enc")), with(key.public("a"), "alg", json!("RS512")),
        with(key.public("a"), "key_ops", json!(["sign"]))
    ]}));
    assert!(matches!(refused(good.clone(), Some(none)).await, Some(FetchError::NoKeys(_))));
}

#[tokio::test]
async fn private_addresses_are_refused_as_literals_and_after_resolution() {
    let key = SigningKey::rsa("rsa-one.pem");
    let issuer = TestIssuer::start(&[key.public("a")]).await;
    install_crypto_provider();
    let fetcher = Fetcher::new(false, roots()).unwrap();
    let port = issuer.url.trim_end_matches("/tenant").rsplit(':').next().unwrap();
    for host in
        ["localhost", "127.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"]
    {
        let refused = fetcher.keys(&format!("https://{host}:{port}/tenant")).await;
        assert!(matches!(refused, Err(FetchError::PrivateAddress(_))), "{host}: {:?}", refused.err());
    }
    assert_eq!(issuer.requests(), 0);
    let token = key.token("a", &claims(&issuer));
    let verified = issuers(false).verify(&policy(&issuer), token.as_bytes(), now()).await;
    assert_eq!(verified, Err(JwtProblem::IssuerUnavailable));
    assert!(Fetcher::new(true, Vec::new()).unwrap().keys(&issuer.url).await.is_err(), "its certificate is not trusted");
}

#[tokio::test]
async fn keys_that_are_too_small_or_share_an_id_verify_nothing() {
    let small = SigningKey::rsa("rsa-one.pem");
    let issuer = TestIssuer::start(&[]).await;
    let (issuers, policy) = (issuers(true), policy(&issuer));
    let mut weak = small.public("weak");
    let modulus = weak["n"].as_str().unwrap()[..168].to_owned();
    weak["n"] = json!(modulus);
    issuer.publish(&[weak, small.public("twice"), SigningKey::rsa("rsa-two.pem").public("twice")]);
    for (kid, problem) in [("weak", JwtProblem::Key), ("twice", JwtProblem::Key)] {
        let token = small.token(kid, &claims(&issuer));
        assert_eq!(issuers.verify(&policy, token.as_bytes(), now()).await, Err(problem), "{kid}");
    }
}

#[test]
fn keys_read_before_the_clock_was_set_back_are_not_used_for_longer() {
    let read = |ahead: SignedDuration| Cached { read_at: Some(now() + ahead), ..Cached::default() };
    assert!(read(SignedDuration::from_mins(30)).age(now()) < REFRESH);
    assert!(read(SignedDuration::from_hours(2)).age(now()) >= REFRESH);
    assert!(read(SignedDuration::from_hours(23)).is_usable(now()));
    assert!(!read(SignedDuration::from_hours(25)).is_usable(now()));
}
