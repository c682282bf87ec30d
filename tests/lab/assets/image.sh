# Finishes a freshly unpacked image. usage: image ROOT
# Hosting services are installed but off: a host switches on what its test needs, so that a bare host boots in a second.
set -eu
root=$1

for unit in mariadb.service mariadb.socket mariadb-extra.socket nginx.service php8.2-fpm.service php8.4-fpm.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer phpsessionclean.timer \
    systemd-timesyncd.service remote-fs.target machines.target; do
    systemctl --quiet --root="$root" disable "$unit" 2>/dev/null || true
done

cat >"$root/etc/mysql/mariadb.conf.d/99-lab.cnf" <<'END'
[mariadbd]
innodb_buffer_pool_size = 16M
innodb_log_file_size = 8M
performance_schema = OFF
END

# Every host gets its own.
: >"$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_*
ln -sf /usr/share/zoneinfo/UTC "$root/etc/localtime"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/*.bin
