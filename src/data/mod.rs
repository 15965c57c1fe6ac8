//! Labelled pictures from files, for the command line.
//!
//! - [`film`]: pictures that follow each other.
//! - [`folder`]: pictures in folders that are named like their class, as they are or in a tar archive.
//! - [`idx`]: the files of MNIST and of the sets that took its place.
//! - [`picture`]: one decoded picture.
//! - [`moving`]: pictures set in motion.

pub mod film;
pub mod folder;
pub mod idx;
pub mod moving;
pub mod picture;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::rng::{Generator, Stream};
use crate::{Error, Result};
pub use picture::Picture;

/// The share of each class that is kept for testing where a set has no test pictures of its own.
const TEST_SHARE: f64 = 0.2;

/// Pictures and their classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labelled {
    /// In the order of their names, or of their file.
    pub pictures: Vec<Picture>,
    /// The class of each picture, an index of [`Dataset::classes`].
    pub labels: Vec<usize>,
}

/// A set of labelled pictures, parted for training and testing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Names of the classes, in alphabetical order.
    pub classes: Vec<String>,
    /// To learn from.
    pub train: Labelled,
    /// To choose settings by; many sets have none.
    pub validation: Option<Labelled>,
    /// To count successes on.
    pub test: Labelled,
}

/// The parts of a set as it was found.
#[derive(Debug, Default)]
struct Parts {
    classes: Vec<String>,
    train: Labelled,
    validation: Labelled,
    test: Labelled,
}

impl Dataset {
    /// Reads a folder with the files of MNIST or with a folder of JPEG or PNG pictures for each class, or a tar archive
    /// (gzipped or not) of the latter. Folders of classes may lie in folders `train`, `validation` and `test`. Without
    /// test pictures, a fifth of each class becomes the test, chosen by `seed`; the same for the same pictures.
    ///
    /// # Errors
    /// [`Error::BadInput`], with the name of the file, if there are no pictures, or one only, or one cannot be read.
    pub fn read(path: &Path, seed: u64) -> Result<Self> {
        let parts = match path.is_dir() && idx::found(path) {
            true => idx::read(path)?,
            false => Parts::read(path)?,
        };
        parts
            .parted(seed)
            .map_err(|why| Error::BadInput(format!("{}: {why}", path.display())))
    }
}

impl Parts {
    /// Of a folder, or a tar archive, with a folder of pictures for each class.
    fn read(path: &Path) -> Result<Self> {
        match path.is_dir() {
            true => folder::read(path),
            false => folder::read_archive(path),
        }
    }

    /// Sees to it that there is something to train on and something to test on.
    fn parted(self, seed: u64) -> Result<Dataset, String> {
        let Self {
            classes,
            mut train,
            mut validation,
            mut test,
        } = self;
        let count = train.len() + validation.len() + test.len();
        if count < 2 {
            return Err(match count {
                0 => "There are no pictures (JPEG or PNG), and no files of MNIST.".into(),
                _ => "There is one picture only; learning and testing take two at least.".into(),
            });
        }
        if test.is_empty() {
            // What some sets call validation is all that they have to test with.
            test = std::mem::take(&mut validation);
        }
        if train.is_empty() || test.is_empty() {
            let all = if train.is_empty() { test } else { train };
            (train, test) = all.split(classes.len(), seed);
        }
        if test.is_empty() {
            return Err(
                "There is one picture of each class; testing takes a second one of some.".into(),
            );
        }
        Ok(Dataset {
            classes,
            train,
            validation: (!validation.is_empty()).then_some(validation),
            test,
        })
    }
}

impl Labelled {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    fn push(&mut self, picture: Picture, label: usize) {
        self.pictures.push(picture);
        self.labels.push(label);
    }

    /// What stays and what is kept apart: a share of every class ([`TEST_SHARE`]), one picture at least, but never the only
    /// one.
    pub fn split(self, classes: usize, seed: u64) -> (Self, Self) {
        let mut random = Stream::new(seed, "split", 0);
        let mut tested = vec![false; self.len()];
        for class in 0..classes {
            let members: Vec<usize> = (0..self.len())
                .filter(|&i| self.labels[i] == class)
                .collect();
            let share = (members.len() as f64 * TEST_SHARE).round() as usize;
            let share = share.max(1).min(members.len().saturating_sub(1));
            for &at in &random.permutation(members.len())[..share] {
                tested[members[at]] = true;
            }
        }
        let mut parts = (Self::default(), Self::default());
        for ((picture, label), tested) in self.pictures.into_iter().zip(self.labels).zip(tested) {
            let part = if tested { &mut parts.1 } else { &mut parts.0 };
            part.push(picture, label);
        }
        parts
    }
}

/// A file, unpacked on the way if it is gzipped, whatever its name is.
fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).map_err(|error| unreadable(path.display(), error))?;
    let mut file = BufReader::new(file);
    let start = file
        .fill_buf()
        .map_err(|error| unreadable(path.display(), error))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(file)));
    }
    Ok(Box::new(file))
}

fn unreadable(name: impl std::fmt::Display, why: impl std::fmt::Display) -> Error {
    Error::BadInput(format!("{name} cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(labels: &[usize]) -> Labelled {
        let mut all = Labelled::default();
        for (i, &label) in labels.iter().enumerate() {
            let picture = Picture {
                name: i.to_string(),
                samples: vec![0],
                width: 1,
                height: 1,
                channels: 1,
            };
            all.push(picture, label);
        }
        all
    }

    fn names(part: &Labelled) -> Vec<&str> {
        part.pictures.iter().map(|p| p.name.as_str()).collect()
    }

    #[test]
    fn every_class_is_split_in_proportion_and_by_the_seed() {
        // 50 of class 0, 12 of class 1, 2 of class 2, 1 of class 3.
        let labels: Vec<usize> = (0..65)
            .map(|i| match i {
                0..50 => 0,
                50..62 => 1,
                62..64 => 2,
                _ => 3,
            })
            .collect();
        let (train, test) = numbered(&labels).split(4, 1);
        let counts = |part: &Labelled| {
            [0, 1, 2, 3].map(|class| part.labels.iter().filter(|&&l| l == class).count())
        };
        assert_eq!(counts(&test), [10, 2, 1, 0]);
        assert_eq!(counts(&train), [40, 10, 1, 1]);
        let mut all = [names(&train), names(&test)].concat();
        all.sort_by_key(|name| name.parse::<usize>().unwrap());
        assert_eq!(all, names(&numbered(&labels)));
        for (part, other) in [(&train, &test), (&test, &train)] {
            assert!(names(part).iter().all(|name| !names(other).contains(name)));
            for (name, &label) in names(part).iter().zip(&part.labels) {
                assert_eq!(labels[name.parse::<usize>().unwrap()], label);
            }
        }
        assert_eq!(numbered(&labels).split(4, 1), (train, test.clone()));
        assert_ne!(numbered(&labels).split(4, 2).1, test);
    }

    #[test]
    fn sets_keep_the_parts_that_they_have() {
        let classes = vec!["a".to_string(), "b".to_string()];
        let parted = |train: &[usize], validation: &[usize], test: &[usize]| {
            let parts = Parts {
                classes: classes.clone(),
                train: numbered(train),
                validation: numbered(validation),
                test: numbered(test),
            };
            parts.parted(1)
        };
        let all = parted(&[0, 1], &[0], &[1]).unwrap();
        assert_eq!(all.validation, Some(numbered(&[0])));
        assert_eq!((all.train, all.test), (numbered(&[0, 1]), numbered(&[1])));
        let two = parted(&[0, 1], &[0], &[]).unwrap();
        assert_eq!((two.validation, two.test), (None, numbered(&[0])));
        for split in [
            parted(&[0, 0, 1, 1], &[], &[]).unwrap(),
            parted(&[], &[], &[0, 0, 1, 1]).unwrap(),
        ] {
            assert_eq!(split.train.labels, [0, 1]);
            assert_eq!(split.test.labels, [0, 1]);
        }
        assert!(parted(&[], &[], &[]).unwrap_err().contains("no pictures"));
        assert!(parted(&[0], &[], &[]).unwrap_err().contains("one picture"));
        assert!(
            parted(&[0, 1], &[], &[])
                .unwrap_err()
                .contains("each class")
        );
    }
}
