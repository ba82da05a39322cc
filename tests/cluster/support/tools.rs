//! The programs built by `scripts/cluster_tools.py`, with a separate home folder.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The path of a tool: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kubectl`, `helm`, `kstatus`,
/// `kustomize-controller`; or of a folder of CRDs, `kustomize-crds` and `source-crds`.
pub(crate) fn tool(name: &str) -> PathBuf {
    let variable = format!("ROLECALL_TEST_{}", name.to_uppercase().replace('-', "_"));
    match std::env::var_os(&variable) {
        Some(path) => path.into(),
        None => panic!(
            "{variable} is not set: `make test` builds the control plane and sets it; by hand: \
             `env $(python3 scripts/cluster_tools.py) cargo test --test cluster`"
        ),
    }
}

/// The output of a program, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Standard output of a program that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status == 0, "ended with {}:\n{}{}", self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a program that failed.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert!(self.status != 0, "succeeded, which it should not:\n{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// Runs a program to its end without blocking the emulator, which runs in this process.
pub(crate) async fn run(mut command: Command, stdin: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut input = child.stdin.take().expect("a pipe");
    let writing = async {
        // A program that does not read its input closes it.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
    };
    let ((), output) = tokio::join!(writing, child.wait_with_output());
    let output = output.expect("an end");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { status: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The results of the kstatus library for objects: status (`Current`, `InProgress`, `Failed`, `Terminating`) and
/// message.
pub(crate) async fn kstatus(objects: &[Value]) -> Vec<(String, String)> {
    let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
    let said = run(Command::new(tool("kstatus")), &lines.join("\n")).await.ok();
    let judged: Vec<_> = said
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(status, message)| (status.to_owned(), message.to_owned()))
        .collect();
    assert_eq!(judged.len(), objects.len(), "one line an object: {said}");
    judged
}
