//! `rolecall token mint`: a new bearer token for an identity provider, with the Secret that holds its hash.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use sha2::{Digest as _, Sha256};

use super::{CliError, Exit, Io};

const EXAMPLES: &str = "\
The token is printed once, to the error stream, and kept nowhere: enter it at the identity provider. The output is a Secret with
its SHA-256 only, so that it may be kept in a repository. Name it in `spec.scim.tokens` of the IdentityProvider, beside the old
token until the identity provider uses the new one.

Examples:
  rolecall token mint --secret okta-scim-2 | kubectl apply -f -
  rolecall token mint --secret okta-scim-2 --namespace access > secrets/okta-scim-2.yaml";

/// Flags of `rolecall token`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// The verbs of `rolecall token`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token of 256 random bits, and print the Secret with its hash
    #[command(after_help = EXAMPLES)]
    Mint {
        /// Name of the Secret
        #[arg(long, value_name = "NAME", value_parser = object_name)]
        secret: String,
        /// The namespace rolecall runs in
        #[arg(long, value_name = "NAMESPACE", default_value = "rolecall-system", value_parser = object_name)]
        namespace: String,
    },
}

/// A name of RFC 1123, as Kubernetes takes it.
fn object_name(text: &str) -> Result<String, String> {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    if bytes.len() <= 253 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| inside(*byte)) {
        return Ok(text.to_owned());
    }
    Err("use lower-case letters, digits, `-` and `.`, with a letter or digit at both ends".to_owned())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// Runs `rolecall token`.
pub(super) fn run(args: &TokenArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let TokenCommand::Mint { secret, namespace } = &args.command;
    let bits: [u8; 32] = rand::random();
    // The prefix lets scanners of repositories recognize a token that leaked.
    let token = format!("rolecall_{}", BASE64_URL_SAFE_NO_PAD.encode(bits));
    let hash = hexadecimal(&Sha256::digest(&token));
    writeln!(
        io.out,
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {secret}\n  namespace: {namespace}\ntype: Opaque\nstringData:\n  tokenSHA256: {hash}"
    )?;
    writeln!(io.err, "{token}")?;
    writeln!(
        io.err,
        "Enter this token at the identity provider now: it is not shown again. Then add to the IdentityProvider:\n  spec.scim.tokens: - name: {secret}\n                      secretRef: {{name: {secret}, key: tokenSHA256}}\n                      notAfter: the day by which it is replaced"
    )?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted() -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let command = TokenCommand::Mint { secret: "okta-2".into(), namespace: "access".into() };
        run(&TokenArgs { command }, &mut Io { out: &mut out, err: &mut err }).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_minted_token_is_only_on_the_error_stream_and_the_secret_has_its_hash() {
        let (out, err) = minted();
        let token = err.lines().next().unwrap();
        assert!(token.starts_with("rolecall_") && token.len() == 52, "{token}");
        let hash = hexadecimal(&Sha256::digest(token));
        assert!(out.contains(&format!("tokenSHA256: {hash}\n")) && out.contains("namespace: access\n"), "{out}");
        assert!(!out.contains(token));
        assert_ne!(minted().1.lines().next(), Some(token));
    }

    #[test]
    fn names_that_kubernetes_does_not_take_are_refused() {
        for name in ["", "-a", "a-", "A", "a b", "a\nb: c"] {
            assert!(object_name(name).is_err(), "{name:?}");
        }
        assert!(object_name("okta-scim.2").is_ok());
    }
}
