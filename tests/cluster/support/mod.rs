//! Support for cluster tests. The parts of a test:
//!
//! - [`Fixture::start`]: etcd, kube-apiserver and kube-controller-manager on loopback, the emulator as Google, the chart
//!   installed with real `helm install` into `rolecall-system`, its Deployment's container running as a process with a
//!   token of its service account, and the provider `okta` and the target `shop-dev` of `common::base()` applied. It derefs
//!   to `common::Google`: `fixture.policy(…)`, `fixture.members_become(…)`, `fixture.fault(…)` are those of `tests/it`.
//! - [`Fixture::with_team`]: the same, and Alice of `team-checkout` may invoke `checkout-api` by the mapping `checkout/team`.
//! - [`Fixture::prepare`]: the same as `start` with more `--set`s and the pod not started; then `fixture.pod.start().await`.
//! - `fixture.admin()`: the API as `serde_json::Value`s ([`Kubernetes`]): `apply(yaml)`, `apply_as(manager, "/status", …)`,
//!   `create`, `replace`, `patch`, `delete`, `get`, `list`; `acting_as(user, groups)` is another user. Names are `NAME`
//!   or `NAMESPACE/NAME`. `fixture.until(kind, name, what, check)` waits; `mapping_status` and `gone` are shortcuts.
//! - `fixture.cluster.kubectl(&[…]).await.ok()` runs the real kubectl, `.helm(…)` the real Helm, [`kstatus`] the library.
//! - `fixture.cluster.now()` and `.calls_since(then)`: the calls to the API server by caller, from its audit log;
//!   `fixture.pod.user` is rolecall's name there.
//! - `fixture.cluster.kill_apiserver()`, `.start_apiserver().await` (same port and data), `.stop_apiserver()` (SIGSTOP).
//!   The pod reaches the API server through `fixture.proxy`: `blackhole()`, `strand()`, `cut()`, `refuse()`, `heal()`.
//!   `.compact()` makes old versions unknown (410).
//! - `fixture.pod`: `kill()` (SIGKILL), `signal("STOP")`, `shutdown()`, `start()`, `spawn()` without waiting, `said()`,
//!   `exec(&["uninstall", …])` as `kubectl exec` would. A second one: `fixture.release.pod(&fixture.cluster, "rolecall-1",
//!   fixture.proxy.address).await`; it shares `fixture.release.volume` as the pods of a Deployment share a claim.
//! - `granted()`: a fixture in which Alice and Bob have the grants of the mapping `checkout/team`; more in `scenes.rs`.
//! - [`Flux::start`]: the real kustomize-controller, whose Git source has the last files given to `flux.publish(&[(path, text)])`.
//! - A second release: [`Release::install`] into another namespace, then its own `pod(…)`.
//! - [`ControlPlane::shared`] for tests without rolecall that leave nothing behind: it lives as long as one of them.
//!
//! Child processes are killed with the test binary; folders are removed with the `Fixture`. A control plane takes 4 s and
//! 430 MB, so at most two run at a time: `--test-threads 2`. By hand:
//! `env $(python3 scripts/cluster_tools.py) cargo test --test cluster -- --test-threads 2 --nocapture NAME`.

#![allow(dead_code, unused_imports, reason = "not each kind of test needs all of it")]

mod audit;
mod control_plane;
mod fixture;
mod flux;
mod kubernetes;
mod process;
mod proxy;
mod release;
mod scenes;
mod team;
mod tools;

pub(crate) use audit::Call;
pub(crate) use control_plane::ControlPlane;
pub(crate) use fixture::{Fixture, SYSTEM};
pub(crate) use flux::{Flux, checks_health, is_ready};
pub(crate) use kubernetes::{Refused, collection, documents, named, path};
pub(crate) use release::{Pod, Release};
pub(crate) use scenes::*;
pub(crate) use team::Team;
pub(crate) use tools::kstatus;

pub(crate) use crate::common::*;
