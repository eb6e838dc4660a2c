"""What pyproject.toml cannot say: programs beside the package go inside it, where `gill/commands.py` runs them."""

from setuptools import find_packages, setup

PLACE = "gill._programs"
FOLDERS = ["demo", "evals", "scripts"]
programs = [name for folder in FOLDERS for name in [folder, *(f"{folder}.{inner}" for inner in find_packages(folder))]]

setup(
    packages=[*find_packages(include=["gill", "gill.*"]), PLACE, *(f"{PLACE}.{name}" for name in programs)],
    package_dir={PLACE: ".", **{f"{PLACE}.{name}": name.replace(".", "/") for name in programs}},
    package_data={"gill": ["py.typed"]},
    include_package_data=False,  # of the folder "." that would be the whole repository
)
