# Makes a WordPress site as a hosting server has it: an account with its Linux user, its tree below /home, its database,
# its PHP pool and its nginx server.
# usage: site set-up|serve USER DOMAIN PHP-VERSION, with site.php and site.sql beside it
# serve only puts PHP and nginx in front of a tree and a database that are there.
set -eu
verb=$1 user=$2 domain=$3 php=$4
home=/home/$user root=/home/$user/www/$domain database=${user}_wp

serve() {
    # The web server reads what the account's group may read.
    usermod --append --groups "$user" www-data
    cat >"/etc/php/$php/fpm/pool.d/$user.conf" <<END
[$user]
user = $user
group = $user
listen = /run/php/$user.sock
listen.owner = www-data
listen.group = www-data
pm = ondemand
pm.max_children = 4
; Else what PHP knows of a file may be two seconds old.
php_admin_value[opcache.revalidate_freq] = 0
END
    rm -f "/etc/php/$php/fpm/pool.d/www.conf" /etc/nginx/sites-enabled/default
    cat >"/etc/nginx/sites-enabled/$domain" <<END
server {
    listen 80;
    server_name $domain;
    root $root;
    index index.php;
    location / { try_files \$uri \$uri/ /index.php?\$args; }
    location ~ \.php\$ {
        include snippets/fastcgi-php.conf;
        fastcgi_pass unix:/run/php/$user.sock;
    }
}
END
    systemctl enable --quiet "php$php-fpm" nginx
    systemctl restart "php$php-fpm" nginx
}

if [ "$verb" = serve ]; then
    serve
    exit
fi

id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
chmod 0750 "$home"
mkdir -p "$home/www"
cp -rL --preserve=timestamps /usr/share/wordpress "$root"
rm -rf "$root/wp-content" "$root/wp-config.php" "$root/.htaccess"
cp -rL --preserve=timestamps /usr/share/wordpress/wp-content "$root/wp-content"
mkdir -p "$root/wp-content/uploads/2026/01"
for number in 1 2 3; do
    # Pictures that are the same on every run: a key stream of fixed key.
    head -c $((number * 150000)) /dev/zero | openssl enc -aes-128-ctr -K 00 -iv "0$number" 2>/dev/null \
        >"$root/wp-content/uploads/2026/01/picture-$number.jpg"
done

systemctl enable --quiet --now mariadb
password=$(openssl rand -hex 16)
mariadb <<END
CREATE DATABASE \`$database\` CHARACTER SET utf8mb4;
CREATE USER '$user'@'localhost' IDENTIFIED BY '$password';
GRANT ALL ON \`$database\`.* TO '$user'@'localhost';
END
cat >"$root/wp-config.php" <<END
<?php
define('DB_NAME', '$database');
define('DB_USER', '$user');
define('DB_PASSWORD', '$password');
define('DB_HOST', 'localhost');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('AUTH_KEY', '$(openssl rand -hex 32)');
define('SECURE_AUTH_KEY', '$(openssl rand -hex 32)');
define('LOGGED_IN_KEY', '$(openssl rand -hex 32)');
define('NONCE_KEY', '$(openssl rand -hex 32)');
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);
\$table_prefix = 'wp_';
if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
END
chmod 0640 "$root/wp-config.php"
chown -R "$user:$user" "$home/www"

cd "$root"
runuser -u "$user" -- php /root/site.php "$root" "$domain"
mariadb "$database" </root/site.sql
serve
