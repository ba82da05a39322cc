//! The number of cases of property tests.

use proptest::test_runner::Config;

/// What proptest runs when nobody says otherwise.
const DEFAULT: u32 = 256;

/// Configuration of a property test whose cases cost more than most: `usual` cases, and in proportion more when
/// `PROPTEST_CASES` asks for more than the default, as `make soak` does.
pub(crate) fn cases(usual: u32) -> Config {
    let config = Config::default();
    Config { cases: usual.saturating_mul(config.cases.max(DEFAULT)) / DEFAULT, ..config }
}
