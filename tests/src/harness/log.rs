//! What an installation said.

use super::Installation;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The child that said it, `up` for the supervisor.
    pub child: String,
    /// What it said.
    pub text: String,
}

impl Line {
    /// Whether it is a warning or an error.
    pub fn is_alarm(&self) -> bool {
        let head: String = self.text.chars().take(120).collect();
        [" WARN ", " ERROR ", "\"level\":\"WARN\"", "\"level\":\"ERROR\"", "panicked at"]
            .iter()
            .any(|mark| head.contains(mark))
    }
}

impl Installation {
    /// Every line so far.
    pub fn log(&self) -> Vec<Line> {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(line).collect()
    }

    /// Every line of one child so far.
    pub fn log_of(&self, child: &str) -> Vec<String> {
        self.log().into_iter().filter(|line| line.child == child).map(|line| line.text).collect()
    }

    /// # Panics
    /// If a child warned or failed with words that contain none of `expected`.
    pub fn assert_no_alarms(&self, expected: &[&str]) {
        let is_expected = |line: &Line| expected.iter().any(|words| line.text.contains(words));
        let alarms: Vec<Line> =
            self.log().into_iter().filter(|line| line.is_alarm() && !is_expected(line)).collect();
        assert!(alarms.is_empty(), "unexpected warnings and errors: {alarms:#?}");
    }
}

fn line(text: &str) -> Option<Line> {
    let (child, text) = text.split_once(" | ")?;
    Some(Line { child: child.trim().to_owned(), text: text.to_owned() })
}
