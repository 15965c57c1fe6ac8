//! Pictures in folders that are named like their class, as they are or in a tar archive.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Parts, Picture, open, unreadable};
use crate::{Error, Result};

/// Largest accepted file of a picture.
const MAX_BYTES: u64 = 256 << 20;

/// Folders in folders that are looked into; links may lead around in circles.
const MAX_DEPTH: usize = 8;

/// The part of a set that a folder of folders of classes holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
    Test,
}

impl Part {
    fn named(folder: &str) -> Option<Self> {
        match folder.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

/// A picture, and what its path says about it.
struct Found {
    part: Option<Part>,
    class: String,
    picture: Picture,
}

/// Every JPEG and PNG below a folder; other files, and hidden ones, are none of its business.
pub(super) fn read(folder: &Path) -> Result<Parts> {
    let mut paths = Vec::new();
    listed(folder, MAX_DEPTH, &mut paths)?;
    let mut all = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let file = open(&path)?;
        let inside = path.strip_prefix(folder).unwrap_or(&path);
        all.push(Found::new(&name, inside, file)?);
    }
    parts(all)
}

/// Every JPEG and PNG of a tar archive.
pub(super) fn read_archive(path: &Path) -> Result<Parts> {
    let mut archive = tar::Archive::new(open(path)?);
    let bad = |error: std::io::Error| {
        unreadable(
            path.display(),
            format!("{error}; it must be a folder or a tar archive"),
        )
    };
    let mut all = Vec::new();
    for entry in archive.entries().map_err(bad)? {
        let entry = entry.map_err(bad)?;
        let inside = entry.path().map_err(bad)?.into_owned();
        if entry.header().entry_type().is_file() && is_picture(&inside) {
            let name = format!("{}/{}", path.display(), inside.display());
            all.push(Found::new(&name, &inside, entry)?);
        }
    }
    // As in a folder, so that both are split alike.
    all.sort_by(|a, b| a.picture.name.cmp(&b.picture.name));
    parts(all)
}

/// Paths of pictures, in the order of their names.
fn listed(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<()> {
    let bad = |error| unreadable(folder.display(), error);
    let mut inside = Vec::new();
    for entry in fs::read_dir(folder).map_err(bad)? {
        inside.push(entry.map_err(bad)?.path());
    }
    inside.sort();
    for path in inside {
        if path.is_dir() {
            if depth > 0 && !is_hidden(&path) {
                listed(&path, depth - 1, paths)?;
            }
        } else if is_picture(&path) {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_picture(path: &Path) -> bool {
    let end = path.extension().and_then(OsStr::to_str).unwrap_or("");
    let known = ["jpg", "jpeg", "png"];
    !is_hidden(path) && known.iter().any(|known| end.eq_ignore_ascii_case(known))
}

/// Such as the `._` files that macOS puts into archives, with the endings of the pictures that they belong to.
fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

impl Found {
    /// Of a file with this path in the set. Its folder is its class, and the folder around that may name a part.
    fn new(name: &str, inside: &Path, file: impl Read) -> Result<Self> {
        let folders: Vec<String> = inside
            .parent()
            .into_iter()
            .flat_map(Path::components)
            .map(|component| component.as_os_str().to_string_lossy().into_owned())
            .collect();
        let (class, around) = match folders.split_last() {
            Some((class, around)) if Part::named(class).is_none() => (class, around),
            _ => {
                return Err(Error::BadInput(format!(
                    "{name} lies in no folder that names its class; put the pictures of each class into a folder of its own."
                )));
            }
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(name, error))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(unreadable(
                name,
                format!("it is larger than {} MB", MAX_BYTES >> 20),
            ));
        }
        Ok(Self {
            part: around.last().and_then(|folder| Part::named(folder)),
            class: class.clone(),
            picture: Picture::decode(name, &bytes)?,
        })
    }
}

fn parts(all: Vec<Found>) -> Result<Parts> {
    let classes: BTreeSet<String> = all.iter().map(|found| found.class.clone()).collect();
    let mut parts = Parts {
        classes: classes.into_iter().collect(),
        ..Parts::default()
    };
    let any = all.iter().any(|found| found.part.is_some());
    for Found {
        part,
        class,
        picture,
    } in all
    {
        // Found: the classes were collected from these.
        let label = parts.classes.binary_search(&class).unwrap_or_default();
        let part = match part {
            Some(Part::Validation) => &mut parts.validation,
            Some(Part::Test) => &mut parts.test,
            None if any => {
                return Err(Error::BadInput(format!(
                    "{} is in none of the folders train, validation and test, but other pictures are; move it into one.",
                    picture.name
                )));
            }
            Some(Part::Train) | None => &mut parts.train,
        };
        part.push(picture, label);
    }
    Ok(parts)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

    use super::*;
    use crate::data::Dataset;

    /// A folder for the time of a test.
    pub struct Folder {
        pub path: PathBuf,
    }

    impl Folder {
        pub fn new(name: &str) -> Self {
            let name = format!("webjepa-data-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self { path }
        }

        pub fn file(&self, name: &str, bytes: &[u8]) {
            let path = self.path.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.path).ok();
        }
    }

    /// Names and contents.
    type Files = Vec<(&'static str, Vec<u8>)>;

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn png(red: u8) -> Vec<u8> {
        let image = RgbImage::from_pixel(3, 2, Rgb([red, 20, 30]));
        encoded(image, ImageFormat::Png)
    }

    fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, bytes.as_slice())
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Red samples of the pictures.
    fn reds(part: &super::super::Labelled) -> Vec<u8> {
        part.pictures.iter().map(|p| p.samples[0]).collect()
    }

    #[test]
    fn folders_and_archives_of_parts_and_classes() {
        let files = [
            ("set/README.md", b"pictures".to_vec()),
            ("set/train/hat/2.png", png(2)),
            ("set/train/hat/1.png", png(1)),
            ("set/train/hat/._1.png", b"macOS".to_vec()),
            ("set/validation/dress/3.PNG", png(3)),
            ("set/test/skirt/4.png", png(4)),
            ("set/test/hat/5.png", png(5)),
        ];
        let folder = Folder::new("parts");
        for (name, bytes) in &files {
            folder.file(name, bytes);
        }
        let plain = Dataset::read(&folder.path.join("set"), 1).unwrap();
        assert_eq!(plain.classes, ["dress", "hat", "skirt"]);
        assert_eq!(
            (reds(&plain.train), &plain.train.labels),
            (vec![1, 2], &vec![1, 1])
        );
        let validation = plain.validation.as_ref().unwrap();
        assert_eq!((reds(validation), &validation.labels), (vec![3], &vec![0]));
        assert_eq!(
            (reds(&plain.test), &plain.test.labels),
            (vec![5, 4], &vec![1, 2])
        );
        let first = &plain.train.pictures[0];
        assert_eq!((first.width, first.height, first.channels), (3, 2, 3));
        assert_eq!(first.samples, [1, 20, 30].repeat(6));

        folder.file("set.tar", &tar(&files));
        let archive = Dataset::read(&folder.path.join("set.tar"), 1).unwrap();
        assert!(
            archive.train.pictures[0]
                .name
                .ends_with("set.tar/set/train/hat/1.png")
        );
        assert_eq!(archive.classes, plain.classes);
        assert_eq!(archive.test.labels, plain.test.labels);
        assert_eq!(reds(&archive.test), reds(&plain.test));
    }

    #[test]
    fn without_parts_every_class_is_split_the_same_in_folder_and_archive() {
        let files: Vec<(String, Vec<u8>)> = (0..20)
            .map(|i| (format!("{}/{i:02}.png", ["a", "b"][i % 2]), png(i as u8)))
            .collect();
        let folder = Folder::new("split");
        for (name, bytes) in &files {
            folder.file(&format!("set/{name}"), bytes);
        }
        let mut backwards: Vec<_> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
        backwards.reverse();
        folder.file("set.tar", &tar(&backwards));
        let plain = Dataset::read(&folder.path.join("set"), 7).unwrap();
        let archive = Dataset::read(&folder.path.join("set.tar"), 7).unwrap();
        assert_eq!(plain.test.labels, [0, 0, 1, 1]);
        assert_eq!(plain.train.len(), 16);
        assert_eq!(reds(&plain.test), reds(&archive.test));
        assert_eq!(reds(&plain.train), reds(&archive.train));
    }

    #[test]
    fn grey_stays_grey_and_jpeg_is_read() {
        let folder = Folder::new("formats");
        let grey = GrayImage::from_pixel(4, 4, Luma([90]));
        folder.file("x/grey.png", &encoded(grey.clone(), ImageFormat::Png));
        folder.file("x/grey.jpeg", &encoded(grey, ImageFormat::Jpeg));
        let set = Dataset::read(&folder.path, 1).unwrap();
        for part in [&set.train, &set.test] {
            assert_eq!(part.pictures[0].channels, 1);
            let near = |&sample: &u8| sample.abs_diff(90) <= 1;
            assert!(part.pictures[0].samples.iter().all(near));
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let refused = |name: &str, files: &[(&str, Vec<u8>)]| {
            let folder = Folder::new(name);
            for (name, bytes) in files {
                folder.file(name, bytes);
            }
            let of_folder = Dataset::read(&folder.path, 1).unwrap_err();
            folder.file("set.tar", &tar(files));
            let of_archive = Dataset::read(&folder.path.join("set.tar"), 1).unwrap_err();
            assert_eq!(of_folder.code(), "bad-input");
            assert_eq!(of_archive.code(), "bad-input");
            [of_folder.to_string(), of_archive.to_string()]
        };
        let cases: [(&str, Files, &str); 7] = [
            ("empty", vec![("README.md", vec![1])], "no pictures"),
            ("one", vec![("a/1.png", png(1))], "one picture"),
            (
                "single",
                vec![("a/1.png", png(1)), ("b/1.png", png(1))],
                "each class",
            ),
            (
                "bare",
                vec![("a/1.png", png(1)), ("2.png", png(1))],
                "2.png lies in no folder",
            ),
            (
                "unclassed",
                vec![("train/7.png", png(1))],
                "7.png lies in no folder",
            ),
            (
                "mixed",
                vec![("train/a/1.png", png(1)), ("a/9.png", png(1))],
                "a/9.png is in none",
            ),
            (
                "damaged",
                vec![("a/1.png", png(1)), ("a/2.png", png(1)[..40].to_vec())],
                "a/2.png cannot be read",
            ),
        ];
        for (name, files, message) in cases {
            for error in refused(name, &files) {
                assert!(error.contains(message), "{name}: {error}");
            }
        }
        let noise = RgbImage::from_fn(64, 64, |x, y| {
            Rgb([(x * y * 37 % 251) as u8, x as u8, y as u8])
        });
        let jpeg = encoded(noise, ImageFormat::Jpeg);
        let cut = jpeg[..jpeg.len() / 2].to_vec();
        for error in refused("cut", &[("a/1.jpg", jpeg), ("a/2.jpg", cut)]) {
            assert!(error.contains("a/2.jpg cannot be read"), "{error}");
        }
        let folder = Folder::new("other");
        folder.file("set.tar", b"not an archive");
        for missing in ["set.tar", "nothing"] {
            let error = Dataset::read(&folder.path.join(missing), 1).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
        let cut = tar(&[("a/1.png", png(1)), ("a/2.png", png(1))])[..600].to_vec();
        folder.file("cut.tar", &cut);
        let error = Dataset::read(&folder.path.join("cut.tar"), 1).unwrap_err();
        assert!(error.to_string().contains("cut.tar"), "{error}");
    }
}
