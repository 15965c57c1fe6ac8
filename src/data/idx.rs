//! The IDX files of MNIST, and of Fashion-MNIST and others of the same names: grey pictures of one size, and a byte each
//! for the class.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Labelled, Parts, Picture, open, unreadable};
use crate::input::MAX_SIDE;
use crate::{Error, Result};

/// Third and fourth byte of a file of bytes in three dimensions: number, rows, columns.
const PICTURES: u32 = 0x0803;

/// The same of a file of bytes in one dimension.
const LABELS: u32 = 0x0801;

/// Largest accepted file, unpacked: 40 times MNIST's.
const MAX_BYTES: u64 = 2 << 30;

/// Whether a folder holds such files.
pub fn found(folder: &Path) -> bool {
    named(folder, "train", "images", 3).is_some()
}

/// The training pictures and, where they are there too, the test pictures, whose names begin with `t10k`.
pub(super) fn read(folder: &Path) -> Result<Parts> {
    let mut parts = Parts::default();
    for (part, prefix) in [(&mut parts.train, "train"), (&mut parts.test, "t10k")] {
        match named(folder, prefix, "images", 3) {
            None => {}
            Some(pictures) => {
                let labels = named(folder, prefix, "labels", 1).ok_or_else(|| {
                    Error::BadInput(format!(
                        "{} has no file of labels beside it.",
                        pictures.display()
                    ))
                })?;
                *part = labelled(&pictures, &labels)?;
            }
        }
    }
    let labels = parts.train.labels.iter().chain(&parts.test.labels);
    let classes = labels.max().map_or(0, |largest| largest + 1);
    parts.classes = (0..classes).map(|class| class.to_string()).collect();
    Ok(parts)
}

/// The file of a part, in the spellings under which it is passed on.
fn named(folder: &Path, prefix: &str, kind: &str, dimensions: usize) -> Option<PathBuf> {
    ["-", "."]
        .iter()
        .flat_map(|dash| {
            ["", ".gz"].map(|end| format!("{prefix}-{kind}{dash}idx{dimensions}-ubyte{end}"))
        })
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

fn labelled(pictures: &Path, labels: &Path) -> Result<Labelled> {
    let ([count, height, width], samples) = content::<3>(pictures, PICTURES)?;
    let ([labelled], labels_read) = content::<1>(labels, LABELS)?;
    if count != labelled {
        return Err(Error::BadInput(format!(
            "{} holds {count} pictures, but {} holds {labelled} labels; they are not of the same set.",
            pictures.display(),
            labels.display()
        )));
    }
    if count > 0 && !((1..=MAX_SIDE).contains(&height) && (1..=MAX_SIDE).contains(&width)) {
        return Err(Error::BadInput(format!(
            "{} holds pictures of {width} × {height} pixels; a side must be from 1 to {MAX_SIDE}.",
            pictures.display()
        )));
    }
    let mut part = Labelled::default();
    for (i, label) in labels_read.into_iter().enumerate() {
        let picture = Picture {
            name: format!("{}#{i}", pictures.display()),
            samples: samples[i * height * width..(i + 1) * height * width].to_vec(),
            width,
            height,
            channels: 1,
        };
        part.push(picture, label.into());
    }
    Ok(part)
}

/// The sizes of the `N` dimensions, and the bytes.
fn content<const N: usize>(path: &Path, magic: u32) -> Result<([usize; N], Vec<u8>)> {
    let bad = |why: &dyn std::fmt::Display| unreadable(path.display(), why);
    let mut file = open(path)?;
    let mut word = || {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes)
            .map(|()| u32::from_be_bytes(bytes))
            .map_err(|error| bad(&error))
    };
    let found = word()?;
    if found != magic {
        return Err(bad(&format!(
            "it begins with {found:#010x}, where an IDX file of this name has {magic:#010x}"
        )));
    }
    let mut sizes = [0; N];
    for size in &mut sizes {
        *size = word()? as usize;
    }
    let count = sizes
        .iter()
        .try_fold(1u64, |count, &size| count.checked_mul(size as u64))
        .filter(|count| *count <= MAX_BYTES)
        .ok_or_else(|| bad(&format!("its header announces {sizes:?} bytes")))?;
    let mut bytes = Vec::new();
    // One more, to see whether there is more.
    file.take(count + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(&error))?;
    if bytes.len() as u64 != count {
        return Err(bad(&format!(
            "its header announces {sizes:?} bytes, but it holds {}",
            if (bytes.len() as u64) < count {
                "fewer"
            } else {
                "more"
            }
        )));
    }
    Ok((sizes, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::folder::tests::Folder;
    use super::*;
    use crate::data::Dataset;

    fn idx(magic: u32, sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
        let words = [&[magic], sizes].concat();
        let header = words.into_iter().flat_map(u32::to_be_bytes);
        header.chain(bytes.iter().copied()).collect()
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_parts_are_read_packed_or_not() {
        let folder = Folder::new("idx");
        let pictures: Vec<u8> = (0..18).collect();
        folder.file(
            "train-images-idx3-ubyte.gz",
            &gzipped(&idx(PICTURES, &[3, 2, 3], &pictures)),
        );
        folder.file(
            "train-labels-idx1-ubyte.gz",
            &gzipped(&idx(LABELS, &[3], &[0, 2, 1])),
        );
        folder.file(
            "t10k-images.idx3-ubyte",
            &idx(PICTURES, &[1, 1, 2], &[7, 8]),
        );
        folder.file("t10k-labels.idx1-ubyte", &idx(LABELS, &[1], &[3]));
        let set = Dataset::read(&folder.path, 1).unwrap();
        assert_eq!(set.classes, ["0", "1", "2", "3"]);
        assert_eq!(set.train.labels, [0, 2, 1]);
        let second = &set.train.pictures[1];
        assert_eq!(
            (second.width, second.height, second.channels),
            (3, 2, 1),
            "{second:?}"
        );
        assert_eq!(second.samples, [6, 7, 8, 9, 10, 11]);
        assert!(
            second.name.ends_with("train-images-idx3-ubyte.gz#1"),
            "{}",
            second.name
        );
        assert_eq!(set.test.pictures[0].samples, [7, 8]);
        assert_eq!((set.validation, set.test.labels), (None, vec![3]));
    }

    #[test]
    fn damaged_files_are_named() {
        let good = |folder: &Folder| {
            folder.file(
                "train-images-idx3-ubyte",
                &idx(PICTURES, &[2, 1, 1], &[1, 2]),
            );
            folder.file("train-labels-idx1-ubyte", &idx(LABELS, &[2], &[0, 0]));
        };
        let images = "train-images-idx3-ubyte";
        let labels = "train-labels-idx1-ubyte";
        let cases: [(&str, &str, Vec<u8>); 8] = [
            ("header", images, vec![0, 0, 8]),
            ("magic", images, idx(LABELS, &[2, 1, 1], &[1, 2])),
            ("short", images, idx(PICTURES, &[2, 1, 2], &[1, 2])),
            ("long", images, idx(PICTURES, &[2, 1, 1], &[1, 2, 3])),
            ("huge", images, idx(PICTURES, &[u32::MAX; 3], &[1])),
            ("flat", images, idx(PICTURES, &[2, 0, 5], &[])),
            ("count", labels, idx(LABELS, &[3], &[0, 0, 0])),
            (
                "packed",
                labels,
                gzipped(&idx(LABELS, &[2], &[0, 0]))[..20].to_vec(),
            ),
        ];
        for (case, file, bytes) in cases {
            let folder = Folder::new(&format!("idx-{case}"));
            good(&folder);
            assert!(Dataset::read(&folder.path, 1).is_ok());
            folder.file(file, &bytes);
            let error = Dataset::read(&folder.path, 1).unwrap_err();
            assert_eq!(error.code(), "bad-input");
            assert!(error.to_string().contains(file), "{case}: {error}");
        }
        let folder = Folder::new("idx-unlabelled");
        good(&folder);
        fs::remove_file(folder.path.join(labels)).unwrap();
        let error = Dataset::read(&folder.path, 1).unwrap_err().to_string();
        assert!(error.contains("no file of labels"), "{error}");
    }
}
