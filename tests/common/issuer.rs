//! An OpenID Connect issuer on the loopback interface, over TLS with a certificate of the fixtures, and tokens signed by its keys.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

/// The path of a file of the fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oidc").join(name)
}

fn private_key(name: &str) -> Vec<u8> {
    PrivateKeyDer::from_pem_file(fixture(name)).expect("a key").secret_der().to_vec()
}

/// A key pair of an issuer.
pub(crate) enum SigningKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl SigningKey {
    /// The RSA key of this file.
    pub(crate) fn rsa(name: &str) -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(&private_key(name)).expect("an RSA key"))
    }

    /// A new key on P-256.
    pub(crate) fn ec() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self::Ec(key.expect("a key"))
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    /// The public key as a JSON Web Key.
    pub(crate) fn public(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                let RsaPublicKeyComponents { n, e }: PublicKeyComponents<Vec<u8>> = key.public().into();
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": text(&n), "e": text(&e)})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(&point[1..33]), "y": text(&point[33..])})
            }
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("a signature");
                signature
            }
            Self::Ec(key) => key.sign(&random, signed.as_bytes()).expect("a signature").as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token with the usual header.
    pub(crate) fn token(&self, kid: &str, claims: &Value) -> String {
        self.sign(&json!({"alg": self.algorithm(), "kid": kid, "typ": "JWT"}), claims)
    }
}

/// An answer of the issuer.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(body: &Value) -> Self {
        Self { status: 200, location: None, body: body.to_string() }
    }
}

/// The answers of an issuer; without one it closes the connection.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) discovery: Option<Answer>,
    pub(crate) keys: Option<Answer>,
}

/// A running issuer.
pub(crate) struct TestIssuer {
    /// Its name, with the host `localhost`.
    pub(crate) url: String,
    pub(crate) answers: Arc<Mutex<Answers>>,
    requests: Arc<AtomicUsize>,
}

impl TestIssuer {
    /// Starts an issuer that publishes these keys.
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificate = CertificateDer::from_pem_file(fixture("server.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(fixture("server.key")).expect("a key");
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a configuration")));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}/tenant", listener.local_addr().expect("an address").port());
        let issuer = Self { url, answers: Arc::default(), requests: Arc::default() };
        let uri = format!("{}/keys", issuer.url);
        issuer.answers.lock().expect("answers").discovery =
            Some(Answer::json(&json!({"issuer": issuer.url, "jwks_uri": uri})));
        issuer.publish(keys);
        let (answers, requests) = (issuer.answers.clone(), issuer.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers, requests) = (acceptor.clone(), answers.clone(), requests.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    answer(stream, &answers, &requests).await;
                });
            }
        });
        issuer
    }

    /// Replaces the published keys.
    pub(crate) fn publish(&self, keys: &[Value]) {
        self.answers.lock().expect("answers").keys = Some(Answer::json(&json!({"keys": keys})));
    }

    /// Makes it unreachable.
    pub(crate) fn stop(&self) {
        *self.answers.lock().expect("answers") = Answers::default();
    }

    /// Number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn answer(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    answers: &Mutex<Answers>,
    requests: &AtomicUsize,
) {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&part[..read]),
        }
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let answer = {
        let answers = answers.lock().expect("answers");
        if head.starts_with(b"GET /tenant/.well-known/openid-configuration ") {
            answers.discovery.clone()
        } else {
            answers.keys.clone()
        }
    };
    if let Some(Answer { status, location, body }) = answer {
        let location = location.map(|to| format!("location: {to}\r\n")).unwrap_or_default();
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{location}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}
