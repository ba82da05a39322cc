//! The table of rules, applied to a folder of manifests.

use super::table::rows;
use super::*;

/// Each row of the table holds.
#[test]
fn every_rule_takes_what_is_good_and_refuses_what_is_not() {
    for (text, from, good, bad) in rows() {
        assert!(one(text).is_ok());
        for to in good {
            let result = one(&replaced(text, from, &to));
            assert!(result.is_ok(), "`{to}` should be taken: {result:?}");
        }
        for (to, reason, words) in bad {
            let problems = one(&replaced(text, from, &to)).expect_err(&to);
            let fits = |problem: &Problem| problem.reason == reason && problem.message.contains(words);
            assert!(problems.iter().any(fits), "`{to}` should be {reason} with `{words}`: {problems:?}");
        }
    }
}
