//! What a container in a simulated guest runs. Nothing of it runs anywhere: the words of its command only say when
//! and how it ends.

use std::path::PathBuf;

/// What a process ends with that the kernel has killed.
pub(super) const KILLED: u32 = 128 + 9;

/// The end of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u32,
    /// It was killed for want of memory.
    pub(super) oom: bool,
}

/// A program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Program {
    /// It runs until it is killed.
    #[default]
    Forever,
    /// It has ended as soon as it has started.
    Ends(End),
    /// It ends once a file is there on the host.
    EndsOnce(PathBuf, End),
}

impl Program {
    /// The program of a command. `true` and `false` end as they always do; `exit-once <file> <code>` and
    /// `outgrow-memory-once <file>` wait for a file first; all else goes on for ever.
    pub(super) fn of(command: &[&str]) -> Self {
        let end = |code| End { code, oom: false };
        match command {
            ["true"] => Self::Ends(end(0)),
            ["false"] => Self::Ends(end(1)),
            ["exit-once", file, code] => {
                code.parse().map_or(Self::Ends(end(2)), |code| Self::EndsOnce(file.into(), end(code)))
            }
            ["outgrow-memory-once", file] => Self::EndsOnce(file.into(), End { code: KILLED, oom: true }),
            _ => Self::Forever,
        }
    }

    /// Its end, if it has come.
    pub(super) fn end(&self) -> Option<End> {
        match self {
            Self::Forever => None,
            Self::Ends(end) => Some(*end),
            Self::EndsOnce(file, end) => file.exists().then_some(*end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_end_as_their_words_say() -> anyhow::Result<()> {
        let code = |command: &[&str]| Program::of(command).end().map(|end| end.code);
        assert_eq!([code(&["true"]), code(&["false"]), code(&["sleep", "1"])], [Some(0), Some(1), None]);
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("go");
        let file = path.to_string_lossy();
        let programs = [Program::of(&["exit-once", &file, "3"]), Program::of(&["outgrow-memory-once", &file])];
        assert_eq!(programs.each_ref().map(Program::end), [None, None]);
        std::fs::write(&path, "")?;
        let ends = [End { code: 3, oom: false }, End { code: 137, oom: true }].map(Some);
        assert_eq!(programs.each_ref().map(Program::end), ends);
        Ok(())
    }
}
